// A relying party on openid-client, given no more than issuer, client and redirect, and leave to speak plain http
// on loopback. It prints one JSON object a line; after {"open": url} it reads the address the browser ended at.

import { createInterface } from "node:readline";
import * as client from "openid-client";

const [issuer, clientId, secret, redirectUri, scope] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (object) => console.log(JSON.stringify(object));
const browse = async (url) => {
  say({ open: url.href });
  return new URL((await lines.next()).value);
};

const config = await client.discovery(new URL(issuer), clientId, secret, undefined, {
  execute: [client.allowInsecureRequests],
});
const verifier = client.randomPKCECodeVerifier();
const [state, nonce] = [client.randomState(), client.randomNonce()];
const callback = await browse(
  client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope,
    state,
    nonce,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
  }),
);
const login = await client.authorizationCodeGrant(config, callback, {
  pkceCodeVerifier: verifier,
  expectedState: state,
  expectedNonce: nonce,
});
const subject = login.claims().sub;
const refreshed = await client.refreshTokenGrant(config, login.refresh_token);
const userinfo = await client.fetchUserInfo(config, refreshed.access_token, subject);
const introspection = await client.tokenIntrospection(config, refreshed.access_token);
await client.tokenRevocation(config, refreshed.refresh_token);
const refused = await client.refreshTokenGrant(config, refreshed.refresh_token).then(
  () => "accepted",
  (error) => error.error,
);
const revoked = await client.tokenIntrospection(config, refreshed.access_token);
const out = await browse(
  client.buildEndSessionUrl(config, {
    id_token_hint: login.id_token,
    post_logout_redirect_uri: redirectUri,
    state: "bye",
  }),
);
say({
  result: {
    id_token: login.claims(),
    login_scope: login.scope,
    refreshed_scope: refreshed.scope,
    userinfo,
    introspection,
    refused,
    revoked,
    logout: out.href,
  },
});
process.exit(0);
