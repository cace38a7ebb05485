"""A relying party on Authlib, given no more than issuer, client and redirect, and leave to speak plain http on
loopback. It prints one JSON object a line; after {"open": url} it reads the address the browser ended at."""

import json
import os
import secrets
import sys

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.jwk import KeySet

issuer, client_id, secret, redirect_uri, scope = sys.argv[1:]


def say(thing):
    print(json.dumps(thing), flush=True)


def browse(url):
    say({"open": url})
    return sys.stdin.readline().strip()


metadata = httpx.get(issuer + "/.well-known/openid-configuration").raise_for_status().json()
client = OAuth2Client(
    client_id, secret, scope=scope, redirect_uri=redirect_uri, code_challenge_method="S256"
)
verifier, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
url, state = client.create_authorization_url(
    metadata["authorization_endpoint"], code_verifier=verifier, nonce=nonce
)
callback = browse(url)
login = dict(
    client.fetch_token(
        metadata["token_endpoint"], authorization_response=callback, state=state, code_verifier=verifier
    )
)
keys = KeySet.import_key_set(httpx.get(metadata["jwks_uri"]).raise_for_status().json())
identity = jwt.decode(login["id_token"], keys).claims
jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": issuer},
    aud={"essential": True, "value": client_id},
    nonce={"essential": True, "value": nonce},
    exp={"essential": True},
).validate(identity)

refreshed = dict(client.refresh_token(metadata["token_endpoint"]))
userinfo = client.get(metadata["userinfo_endpoint"]).raise_for_status().json()
introspect = lambda: client.introspect_token(
    metadata["introspection_endpoint"], token=refreshed["access_token"], token_type_hint="access_token"
).raise_for_status().json()
introspection = introspect()
client.revoke_token(
    metadata["revocation_endpoint"], token=refreshed["refresh_token"], token_type_hint="refresh_token"
).raise_for_status()
try:
    client.refresh_token(metadata["token_endpoint"], refresh_token=refreshed["refresh_token"])
    refused = "accepted"
except AuthlibBaseError as error:
    refused = error.error
revoked = introspect()
logout = httpx.URL(
    metadata["end_session_endpoint"],
    params={"id_token_hint": login["id_token"], "post_logout_redirect_uri": redirect_uri, "state": "bye"},
)
out = browse(str(logout))
say(
    {
        "result": {
            "id_token": identity,
            "login_scope": login["scope"],
            "refreshed_scope": refreshed["scope"],
            "userinfo": userinfo,
            "introspection": introspection,
            "refused": refused,
            "revoked": revoked,
            "logout": out,
        }
    }
)
