"""A mail relay that others wrote (aiosmtpd), with TLS and log-in, for the tests of the SMTP gateway.

Prints its port and the certificate it made, then one JSON line for every mail that it took: who logged in, over what,
to whom, and the mail as Python's own parser reads it.
"""

import asyncio
import datetime
import email
import email.policy
import ipaddress
import json
import ssl
import sys
import tempfile

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def say(**words):
    print(json.dumps(words), flush=True)


def certificate():
    """A certificate for localhost that signs itself, as a file for the server and as PEM for the client."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(secret + pem)
        file.flush()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file.name)
    return context, pem.decode()


def authenticate(server, session, envelope, mechanism, data):
    fits = isinstance(data, LoginPassword) and data.login == b"reentry" and data.password == b"correct horse"
    return AuthResult(success=fits, handled=False, auth_data=data)


class Mailbox:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        say(
            to=envelope.rcpt_tos,
            encrypted=server.transport.get_extra_info("ssl_object") is not None,
            login=session.auth_data.login.decode() if session.authenticated else None,
            headers={name: str(value) for name, value in mail.items()},
            defects=[str(d) for d in mail.defects],
            text=mail.get_body(("plain",)).get_content(),
            html=mail.get_body(("html",)).get_content(),
            parts=[part.get_content_type() for part in mail.walk()],
        )
        return "250 taken"


async def main(how):
    context, pem = certificate()
    log_in = {"authenticator": authenticate, "auth_required": True}
    settings = {
        "starttls": {**log_in, "tls_context": context, "require_starttls": True},
        "implicit": {**log_in, "auth_require_tls": False},
        "plain": {},
    }[how]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Mailbox(), hostname="localhost", **settings),
        "127.0.0.1",
        0,
        ssl=context if how == "implicit" else None,
    )
    say(port=server.sockets[0].getsockname()[1], certificate=pem)
    # Until the test lets go.
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main(sys.argv[1]))
