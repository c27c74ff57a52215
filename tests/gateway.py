"""A gateway before a server of ours, as teams have them: TLS, a path of its own, a login."""

import datetime
import http.client
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOGIN_PAGE = b"<html>Please log in</html>"


def certificate(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1, signed by nobody else, with its key; return its file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file


@contextmanager
def gateway(
    backend: str,
    prefix: str = "",
    only: str = "/",
    need: tuple[str, str] | None = None,
    refusal: tuple[int, bytes] = (401, b"log in first"),
    tls: Path | None = None,
) -> Iterator[str]:
    """Run a gateway on 127.0.0.1; give the address that stands for the backend's.

    Args:
        backend: The server's address.
        prefix: Path at the gateway that stands for the server's /.
        only: What does not begin with this path of the server's is 404.
        need: Name and value of a header that each request needs.
        refusal: The answer to a request without it.
        tls: A certificate with its key.
    """
    to = urlsplit(backend)

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.removeprefix(prefix)
            if need and self.headers.get(need[0]) != need[1]:
                self.say(*refusal)
            elif not self.path.startswith(prefix) or not path.startswith(only):
                self.say(404, b"no such page at this gateway")
            else:
                behind = http.client.HTTPConnection(str(to.hostname), to.port)
                left_out = {"host", "connection", "accept-encoding"}
                headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
                behind.request(self.command, path, body, headers)
                said = behind.getresponse()
                self.say(said.status, said.read(), said.getheader("content-type") or "text/plain")
                behind.close()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815 - as http.server calls them

        def say(self, code: int, text: bytes, kind: str = "text/html") -> None:
            self.send_response(code)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}{prefix}"
    finally:
        server.shutdown()
        server.server_close()
