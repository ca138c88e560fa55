"""How to reach the object stores: `--storage-options`, parsed to pyarrow's own keyword arguments."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cam_ops.errors import UsageError
from cluster.process.console import shortened

SHOWN_CHARACTERS = 300
SECRETS = ("access_key", "secret_key", "session_token", "access_token", "external_id", "proxy_options")


def _yes_or_no(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise ValueError(text)
    return seconds


_BOTH: dict[str, Callable[[str], Any]] = {
    **{"endpoint_override": str, "scheme": str, "anonymous": _yes_or_no},
    "retry_time_limit": _seconds,  # ours, for all that is tried again; the name is pyarrow's for Google's client
}
KNOWN: dict[str, dict[str, Callable[[str], Any]]] = {
    "s3": {
        **_BOTH,
        **dict.fromkeys(("access_key", "secret_key", "session_token", "region", "role_arn", "session_name"), str),
        **dict.fromkeys(("external_id", "proxy_options", "tls_ca_file_path"), str),
        **{"request_timeout": _seconds, "connect_timeout": _seconds, "load_frequency": int},
        "force_virtual_addressing": _yes_or_no,
    },
    "gs": {
        **_BOTH,
        **{"access_token": str, "credential_token_expiration": datetime.fromisoformat},
        **{"target_service_account": str, "project_id": str},
    },
}


_EXPECTED = {
    _yes_or_no: "true or false",
    _seconds: "a number of seconds above 0",
    int: "a whole number",
    datetime.fromisoformat: "a time such as 2030-01-31T12:00:00+00:00",
}


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How to reach the stores, beyond what pyarrow finds in the environment; printing it shows no value."""

    values: tuple[tuple[str, str, Any], ...] = field(default=(), repr=False)  # store, pyarrow's keyword, value

    def of(self, store: str) -> dict[str, Any]:
        """Return pyarrow's keyword arguments for a store, and our own retry_time_limit, seconds."""
        return {name: value for kind, name, value in self.values if kind == store}


NO_OPTIONS = StorageOptions()


def parse_options(words: Iterable[str]) -> StorageOptions:
    """Parse `KEY=VALUE` words, for all stores that know the key, or for one as `s3.KEY=VALUE`, `gs.KEY=VALUE`.

    Raises UsageError that names the key, never the value.
    """
    values = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError("--storage-options expects words KEY=VALUE, one of them has no =")
        store, _, name = key.partition(".") if key.startswith(("s3.", "gs.")) else ("", "", key)
        stores = [kind for kind in KNOWN if name in KNOWN[kind] and store in ("", kind)]
        if not stores:
            known = "; ".join(f"{kind}: {', '.join(KNOWN[kind])}" for kind in KNOWN if store in ("", kind))
            raise UsageError(
                f"--storage-options has no key {shortened(key, SHOWN_CHARACTERS)!r}; known are, for {known}"
            )
        try:
            values += [(kind, name, KNOWN[kind][name](text)) for kind in stores]
        except (ValueError, KeyError):
            raise UsageError(
                f"--storage-options {key} expects {_EXPECTED.get(KNOWN[stores[0]][name], 'another value')}"
            ) from None
    return StorageOptions(tuple(values))
