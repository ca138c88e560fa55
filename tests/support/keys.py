"""A server that lists as many keys as a test asks for, as S3 and Google do, and has nothing else: no disk could serve
them soon. It also lends the keys of a role, as Amazon's STS does.

Keys are `set/class-00000/image-000000.jpg` and so on, page by page of a thousand.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = 1000
GOOGLE = {"size": "7", "updated": "2026-01-01T00:00:00.000Z"}
ROLE = (
    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>LENT</AccessKeyId><SecretAccessKey>s"
    "</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
    "</AssumeRoleResult></AssumeRoleResponse>"
)


@dataclass(slots=True, kw_only=True)
class Keys:
    """How many there are, and what was asked for."""

    num_folders: int
    num_keys: int  # in each
    address: str = ""
    requests: list[str] = field(default_factory=list)
    signers: set[str] = field(default_factory=set)  # the keys with which requests were signed

    @property
    def words(self) -> list[str]:
        """--storage-options to reach it."""
        return [f"endpoint_override={self.address}", "scheme=http", "region=us-east-1", "gs.anonymous=true"]

    def page(self, prefix: str, delimiter: str, start: int) -> tuple[list[str], bool]:
        """Return keys, or folders where a delimiter asks for them, from a place on; and whether more follow."""
        folder = prefix.removeprefix("set/")
        if not folder and delimiter:
            end, name = self.num_folders, "set/class-{0:05d}/".format
        elif not folder:
            end = self.num_folders * self.num_keys
            name = lambda at: self._key(*divmod(at, self.num_keys))  # noqa: E731
        else:
            number = int(folder.removeprefix("class-").rstrip("/"))
            end, name = self.num_keys, lambda at: self._key(number, at)
        return [name(at) for at in range(start, min(end, start + PAGE))], start + PAGE < end

    def _key(self, number: int, at: int) -> str:
        return f"set/class-{number:05d}/image-{at:06d}.jpg"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys: Keys

    def do_GET(self) -> None:
        self._note(self.path)
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if "prefix" not in query:  # Google's client asks for a bucket's own data as well, and takes no for an answer
            self.send_error(403)
            return
        start = int(query.get("continuation-token") or query.get("pageToken") or 0)
        delimiter = query.get("delimiter", "")
        names, more = self.keys.page(query["prefix"], delimiter, start)
        are_folders = bool(delimiter) and query["prefix"] == "set/"
        if self.path.startswith("/storage/"):
            found = {"prefixes": names} if are_folders else {"items": [GOOGLE | {"name": name} for name in names]}
            self._answer(
                "application/json", json.dumps(found | {"nextPageToken": f"{start + PAGE}"} if more else found)
            )
            return
        element = (
            "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"
            if are_folders
            else "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>7</Size></Contents>"
        )
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        self._answer(
            "application/xml",
            f'<?xml version="1.0"?><ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}'
            f"{''.join(map(element.format, names))}</ListBucketResult>",
        )

    def do_POST(self) -> None:
        self._note(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._answer("application/xml", ROLE)

    def _note(self, asked: str) -> None:
        self.keys.requests.append(asked)
        self.keys.signers |= set(re.findall("Credential=([^/]*)/", self.headers.get("Authorization", "")))

    def _answer(self, kind: str, text: str) -> None:
        self.send_response_only(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving_keys(num_folders: int, num_keys: int) -> Iterator[Keys]:
    """Serve so many keys."""
    keys = Keys(num_folders=num_folders, num_keys=num_keys)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"keys": keys}))
    keys.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield keys
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
