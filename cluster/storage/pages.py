"""Pages of the listings of object stores, by botocore and google-cloud-storage: pyarrow 26 lists a prefix whole."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from pyarrow import fs

from cam_ops.errors import UsageError
from cluster.storage.attempts import ListingError, endpoint_of_s3, reason_of, retried, split
from cluster.storage.options import StorageOptions

PAGE = 1000  # objects, the most that S3 gives
TIMEOUTS_S = (5.0, 15.0)  # to connect, and to wait for bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some objects below an address, in the order of their keys where the store keeps one, and folders."""

    names: list[str]  # below the address
    sizes: list[int]  # bytes
    times_s: list[float]  # when each was put there, since 1970
    folders: list[str]  # names of those right in the folder that is listed, if it is not listed with all below it


def pages(address: str, options: StorageOptions, *, folder: str = "", recursive: bool) -> Iterator[Page]:
    """Yield what lies in a folder below an address, `/` at its end, or the address itself; nothing is no error.

    Raises StorageError, and UsageError for options that the clients do not take.
    """
    store, path = split(address)
    bucket, _, base = path.rstrip("/").partition("/")
    base = f"{base}/" if base else ""
    page_of = _s3_page if store == "s3" else _gs_page
    token: str | None = ""
    while token is not None:
        ask = partial(page_of, options, bucket, base + folder, "" if recursive else "/", token)
        found, prefixes, token = retried(address, options, ask)
        found = [entry for entry in found if not entry[0].endswith("/")]  # a mark that means a folder
        yield Page(
            names=[key.removeprefix(base) for key, _, _ in found],
            sizes=[size for _, size, _ in found],
            times_s=[time_s for _, _, time_s in found],
            folders=[prefix.removeprefix(base + folder)[:-1] for prefix in prefixes],
        )


_Answer = tuple[list[tuple[str, int, float]], list[str], str | None]
"""Keys with their sizes and times; prefixes, each with `/` at its end; what asks for the next page."""


def _s3_page(
    options: StorageOptions, bucket: str, prefix: str, delimiter: str, token: str, system: fs.FileSystem
) -> _Answer:
    from botocore import exceptions, parsers

    asked = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter, "ContinuationToken": token, "MaxKeys": PAGE}
    try:
        answer = _s3_client(options, system.region).list_objects_v2(
            **{name: value for name, value in asked.items() if value}
        )
    except exceptions.ClientError as error:
        word = "".join(f"_{c}" if c.isupper() else c.upper() for c in error.response["Error"]["Code"]).lstrip("_")
        raise ListingError(word, error.response["ResponseMetadata"].get("HTTPStatusCode", 0), str(error)) from None
    except (exceptions.HTTPClientError, exceptions.ConnectionError, parsers.ResponseParserError) as error:
        raise ListingError("", 0, str(error)) from None
    except exceptions.BotoCoreError as error:  # no credentials, or none that can be had
        raise ListingError("" if _is_of_connection(error) else "UNAUTHENTICATED", 0, str(error)) from None
    found = [(each["Key"], each["Size"], each["LastModified"].timestamp()) for each in answer.get("Contents", ())]
    prefixes = [each["Prefix"] for each in answer.get("CommonPrefixes", ())]
    following = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
    if answer.get("IsTruncated") and following in (None, token):  # the rest would be lost, or asked for without end
        raise ListingError(
            "VALIDATION", 0, "the listing has more pages and no token for the next; is this S3's version 2?"
        )
    return found, prefixes, following


def _is_of_connection(error: BaseException | None) -> bool:
    """Say whether an error comes of the service that gives credentials, which was not reached or did not answer."""
    from botocore import exceptions

    passing = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.MetadataRetrievalError)
    while error and not isinstance(error, passing):
        error = error.__cause__ or error.__context__
    return error is not None


@lru_cache(maxsize=8)
def _s3_client(options: StorageOptions, region: str) -> Any:
    """Return botocore's client, one in each process, which reaches what pyarrow reaches with the same options."""
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import BotoCoreError

    logging.getLogger("botocore").setLevel(logging.CRITICAL)  # it writes tracebacks of what it raises
    given = options.of("s3")
    endpoint = given.get("endpoint_override") or endpoint_of_s3()
    proxy = given.get("proxy_options")
    try:
        session = botocore.session.get_session()
        if "access_key" in given:
            session.set_credentials(given["access_key"], given.get("secret_key"), given.get("session_token"))
        credentials = None if given.get("anonymous") else session.get_credentials()
        if "role_arn" in given and credentials:
            more = {"ExternalId": given.get("external_id"), "DurationSeconds": given.get("load_frequency")}
            fetcher = AssumeRoleCredentialFetcher(
                partial(session.create_client, region_name=region),
                credentials,
                given["role_arn"],
                {name: value for name, value in more.items() if value}
                | {"RoleSessionName": given.get("session_name") or "camray"},
            )
            session._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
        return session.create_client(
            "s3",
            region_name=region,
            endpoint_url=_url(endpoint, given.get("scheme")),
            verify=given.get("tls_ca_file_path"),
            config=Config(
                signature_version=UNSIGNED if credentials is None else None,
                s3={
                    "addressing_style": "path" if endpoint and not given.get("force_virtual_addressing") else "virtual"
                },
                connect_timeout=given.get("connect_timeout", TIMEOUTS_S[0]),
                read_timeout=given.get("request_timeout", TIMEOUTS_S[1]),
                retries={"total_max_attempts": 1},  # `retried` has them
                proxies={"http": proxy, "https": proxy} if proxy else None,
                max_pool_connections=32,
            ),
        )
    except (BotoCoreError, ValueError) as error:
        if _is_of_connection(error):
            raise
        raise UsageError(f"a listing cannot use these --storage-options: {reason_of(error, options)}") from None


def _gs_page(
    options: StorageOptions, bucket: str, prefix: str, delimiter: str, token: str, _: fs.FileSystem
) -> _Answer:
    from google.api_core.exceptions import GoogleAPICallError, NotFound
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests import RequestException

    try:
        listing = _gs_client(options).list_blobs(
            bucket,
            prefix=prefix or None,
            delimiter=delimiter or None,
            page_token=token or None,
            page_size=PAGE,
            fields="items(name,size,updated),prefixes,nextPageToken",
            timeout=TIMEOUTS_S,
            retry=None,  # `retried` has it
        )
        blobs = list(next(listing.pages, ()))
    except NotFound:
        raise ListingError("NO_SUCH_BUCKET", 404, f"there is no bucket {bucket}") from None
    except GoogleAPICallError as error:
        raise ListingError("", error.code or 0, str(error)) from None
    except (TransportError, RequestException, ValueError) as error:
        raise ListingError("", 0, str(error)) from None
    except GoogleAuthError as error:
        raise ListingError("UNAUTHENTICATED", 0, str(error)) from None
    found = [(blob.name, blob.size or 0, blob.updated.timestamp() if blob.updated else 0.0) for blob in blobs]
    return found, sorted(listing.prefixes), listing.next_page_token


@lru_cache(maxsize=8)
def _gs_client(options: StorageOptions) -> Any:
    """Return Google's client, one in each process, which reaches what pyarrow reaches with the same options."""
    import google.auth
    from google.auth import impersonated_credentials
    from google.auth.credentials import AnonymousCredentials, Credentials
    from google.cloud import storage
    from google.oauth2.credentials import Credentials as Token

    given = options.of("gs")
    emulator = os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT")
    endpoint = given.get("endpoint_override") or emulator
    scopes = ["https://www.googleapis.com/auth/devstorage.read_only"]
    credentials: Credentials
    if given.get("anonymous") or emulator:
        credentials = AnonymousCredentials()
    elif "access_token" in given:
        credentials = Token(given["access_token"])
    else:
        credentials, _ = google.auth.default(scopes=scopes)
    if account := given.get("target_service_account"):
        credentials = impersonated_credentials.Credentials(credentials, account, scopes)
    url = _url(endpoint, given.get("scheme"))
    return storage.Client(
        project=given.get("project_id") or "camray",  # a listing needs none
        credentials=credentials,
        client_options={"api_endpoint": url} if url else None,
    )


def _url(endpoint: str | None, scheme: str | None) -> str | None:
    """Return an endpoint with its scheme, as pyarrow takes it: `HOST[:PORT]`, or a URL."""
    return endpoint if endpoint is None or "://" in endpoint else f"{scheme or 'https'}://{endpoint}"
