"""Who we are to Azure, and where the storage account is: the settings, Azure's variables, azure-identity."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from threading import Lock
from time import time
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from tidemill_core.errors import ConfigError
from tidemill_core.extras import needs_extra
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._http import Headers, Place, Reply, Request
from tidemill_core.storage._net import checked_endpoint, quiet, trusted
from tidemill_core.storage._sharedkey import dated, sign
from tidemill_core.storage.errors import CredentialsMissing, CredentialsRefused, StoreUnavailable

_SCOPE = "https://storage.azure.com/.default"
_RENEW_BEFORE_S = 300
_REMEDY = "Set TIDEMILL_AZURE_KEY, _SAS_TOKEN, _CONNECTION_STRING or a service principal, or sign in (az login)"
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_NOT_SET_UP = re.compile(r"unavailable|not found|not installed|could not be found|requires the '")
_MSAL_BUSY = re.compile(r"HTTP Error: (429|5\d\d)|temporarily_unavailable")
_REFUSED = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo", "ExpiredAuthenticationToken"})
_VARIABLES = {
    "connection_string": ("CONNECTION_STRING",),
    "key": ("KEY", "ACCOUNT_KEY"),
    "sas_token": ("SAS_TOKEN",),
}
"""Azure's own variables that hold an identity, in the order of its command line."""
# The account of the emulators, which everyone knows: learn.microsoft.com/azure/storage/common/storage-use-azurite.
_DEVELOPMENT = {
    "AccountName": "devstoreaccount1",
    "AccountKey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "BlobEndpoint": "http://127.0.0.1:10000/devstoreaccount1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who we are, at which account; `secret` is the key or the SAS."""

    kind: Literal["key", "sas", "anonymous", "entra"]
    account: str
    endpoint_url: str
    source: str
    secret: str = ""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"Identity({self.kind!r}, {self.account!r}, {self.source!r})"


class AzureAccess:
    """Access to one container by key, SAS, Entra identity, or anonymously.

    Raises:
        ConfigError: No account, several identities at once, half a service principal, or a key that is none.
    """

    def __init__(self, url: str, container: str, options: StorageOptions) -> None:
        self._url, self._options = url, options
        self.identity = found = _identity(url, options)
        self._key = _decoded(found.secret, found.source) if found.kind == "key" else b""
        sas = found.secret if found.kind == "sas" else ""
        base_url = f"{found.endpoint_url}/{container}"
        self._place = Place.of(base_url, query=sas, ca_bundle=trusted(options.ca_bundle))
        self._lock = Lock()
        self._credential: Any = None
        self._token: Any = None

    def place(self) -> Place:
        """Where requests go, with the SAS if there is one."""
        return self._place

    def signed(self, request: Request, place: Place) -> Headers:
        """Sign by the account's key, or add the token of the time."""
        now = datetime.now(UTC)
        if self.identity.kind == "key":
            return sign(request, self.identity.account, self._key, base_path=place.path, now=now)
        headers = dated(request, now)
        return {**headers, "Authorization": f"Bearer {self.token()}"} if self.identity.kind == "entra" else headers

    def token(self) -> str:
        """The token in force, renewed five minutes before its end.

        Raises:
            CredentialsMissing: Nothing says who we are.
            CredentialsRefused: Entra does not accept who we are.
            StoreUnavailable: Entra does not answer.
        """
        with self._lock:
            if self._token is None or self._token.expires_on - time() < _RENEW_BEFORE_S:
                self._renew()
            return str(self._token.token)

    def expires_at(self) -> int | None:
        """When the token ends, in seconds since 1970."""
        return None if self._token is None else int(self._token.expires_on)

    def corrected(self, sent: Headers, reply: Reply) -> str | None:
        """Take a new token for one that is not accepted any more."""
        if reply.status != HTTPStatus.UNAUTHORIZED or self.identity.kind != "entra":
            return None
        with self._lock:
            if sent.get("Authorization") == f"Bearer {self._token.token}":
                self._credential = None  # with the tokens it keeps
                self._renew()
        return "token"

    def advice(self, reply: Reply, code: str) -> tuple[bool, str]:
        """What to do about a refusal."""
        identity = self.identity
        if identity.kind == "sas" and (ended := _ended(identity.secret)):
            return True, f"the SAS of {identity.source} ended at {ended}; make a new one"
        if code in _REFUSED or reply.status == HTTPStatus.UNAUTHORIZED:
            return True, f"{identity.source} is not accepted; {_REMEDY[0].lower()}{_REMEDY[1:]}"
        if reply.status == HTTPStatus.FORBIDDEN or code in {"ResourceNotFound", "PublicAccessNotPermitted"}:
            return False, f"asked by {identity.source}"
        return False, ""

    def _renew(self) -> None:
        with _in_our_words(self._url):
            if self._credential is None:
                self._credential = _credential(self._options)
            self._token = self._credential.get_token(_SCOPE)


def _identity(url: str, options: StorageOptions) -> Identity:
    """Choose: what the settings name, else what Azure's variables name, else Entra."""
    named = _named(options)
    source, fields = _given(options, named)
    if options.anonymous and not named:
        source, fields = "anonymous requests", {}
    account = options.azure_account or fields.get("AccountName") or _variable("ACCOUNT", "ACCOUNT_NAME")
    if fields.get("AccountName") not in {None, account}:
        raise ConfigError(f"{url}: the account is {account!r}, but {source} is of {fields['AccountName']!r}")
    endpoint = options.azure_endpoint_url or fields.get("BlobEndpoint") or _variable("SERVICE_ENDPOINT")
    if endpoint:
        endpoint = checked_endpoint(endpoint, "the endpoint of Azure (azure_endpoint_url)")
        account = account or _account_of(endpoint)
    if not account:
        raise ConfigError(f"{url!r} needs the storage account: set TIDEMILL_AZURE_ACCOUNT or AZURE_STORAGE_ACCOUNT")
    scheme = fields.get("DefaultEndpointsProtocol") or "https"
    endpoint = endpoint or f"{scheme}://{account}.blob.{fields.get('EndpointSuffix') or 'core.windows.net'}"
    if options.anonymous and not named:
        return Identity(kind="anonymous", account=account, endpoint_url=endpoint, source=source)
    if key := fields.get("AccountKey"):
        return Identity(kind="key", account=account, endpoint_url=endpoint, source=source, secret=key)
    if sas := fields.get("SharedAccessSignature"):
        return Identity(kind="sas", account=account, endpoint_url=endpoint, source=source, secret=sas.lstrip("?"))
    return Identity(kind="entra", account=account, endpoint_url=endpoint, source=source)


def _named(options: StorageOptions) -> str | None:
    """The one identity that the settings name."""
    names = ("azure_connection_string", "azure_key", "azure_sas_token", "azure_client_secret")
    given = [name for name in names if getattr(options, name)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are both set, and each is an identity of Azure; keep one")
    if options.azure_client_secret and not (options.azure_tenant_id and options.azure_client_id):
        raise ConfigError("azure_client_secret is set without azure_tenant_id and azure_client_id")
    if given:
        return given[0]
    return "azure_client_id" if options.azure_client_id else None


def _given(options: StorageOptions, named: str | None) -> tuple[str, Mapping[str, str]]:
    """Where the identity comes from, and its fields in the words of connection strings."""
    if named in {"azure_client_secret", "azure_client_id"}:
        return named, {}
    if named:
        return named, _fields(named.removeprefix("azure_"), getattr(options, named).get_secret_value(), named)
    for kind, names in _VARIABLES.items():
        for name in (f"AZURE_STORAGE_{each}" for each in names):
            if value := os.environ.get(name):
                return name, _fields(kind, value, name)
    return "the Entra identity of azure-identity", {}


def _fields(kind: str, text: str, source: str) -> Mapping[str, str]:
    if kind == "connection_string":
        return _connection(text, source)
    return {"AccountKey" if kind == "key" else "SharedAccessSignature": text}


def _connection(text: str, source: str) -> dict[str, str]:
    """Read ``Name=value;Name=value``.

    Raises:
        ConfigError: It is no connection string; does not show it.
    """
    pairs = [part.strip().partition("=") for part in text.split(";") if part.strip()]
    if not pairs or not all(separator and value for _, separator, value in pairs):
        raise ConfigError(f"{source} is no connection string: AccountName=...;AccountKey=...;EndpointSuffix=...")
    fields = {name: value for name, _, value in pairs}
    if fields.get("UseDevelopmentStorage", "").lower() == "true":
        return dict(_DEVELOPMENT)
    if not fields.get("AccountKey") and not fields.get("SharedAccessSignature"):
        raise ConfigError(f"{source} holds neither AccountKey nor SharedAccessSignature")
    return fields


def _variable(*names: str) -> str | None:
    """The first variable ``AZURE_STORAGE_<name>`` that is set."""
    return next((value for name in names if (value := os.environ.get(f"AZURE_STORAGE_{name}"))), None)


def _account_of(endpoint: str) -> str | None:
    host = urlsplit(endpoint).hostname or ""
    return host.partition(".")[0] if ".blob." in host else None


def _decoded(key: str, source: str) -> bytes:
    try:
        return b64decode(key, validate=True)
    except ValueError as error:
        raise ConfigError(f"{source} holds no account key: it is not base64") from error


def _ended(sas: str) -> str | None:
    """The end of a SAS, if it is past."""
    end = parse_qs(sas).get("se", [""])[0]
    try:
        moment = datetime.fromisoformat(end)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return end if moment < datetime.now(UTC) else None


def _credential(options: StorageOptions) -> Any:
    """Make the credential: of the settings, else the one that the environment is set up for, else any that works.

    What is set up is asked alone: the chain of azure-identity does not tell a refusal from an outage.
    """
    with needs_extra():
        from azure import identity

    quiet("azure.identity", "azure.core", "msal")
    verify = {"connection_verify": str(options.ca_bundle)} if options.ca_bundle else {}
    tenant, client = options.azure_tenant_id or "", options.azure_client_id
    if options.azure_client_secret:
        secret = options.azure_client_secret.get_secret_value()
        return identity.ClientSecretCredential(tenant, client or "", secret, **verify)
    named = {"tenant_id": tenant} if tenant else {}
    if _are_set("AZURE_FEDERATED_TOKEN_FILE"):
        return identity.WorkloadIdentityCredential(**named, **({"client_id": client} if client else {}), **verify)
    if not client and _are_set("AZURE_CLIENT_ID", "AZURE_TENANT_ID"):
        return identity.EnvironmentCredential(**verify)
    if _are_set("IDENTITY_ENDPOINT") or client:
        found: Any = identity.ManagedIdentityCredential
        return found(client_id=client or os.environ.get("AZURE_CLIENT_ID"), **verify)
    return identity.DefaultAzureCredential(**verify)


def _are_set(*names: str) -> bool:
    return all(os.environ.get(name) for name in names)


@contextmanager
def _in_our_words(url: str) -> Iterator[None]:
    """Turn azure-identity's errors into ours: missing, refused, or unavailable for now."""
    with needs_extra():
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import CredentialUnavailableError

    try:
        yield
    except CredentialUnavailableError as error:
        raise CredentialsMissing(url, [*_looked(), f"and azure-identity said: {_line(error)}"], _REMEDY) from error
    except AzureError as error:
        if _is_outage(error) or not isinstance(error, ClientAuthenticationError):
            raise StoreUnavailable(url, "get a token of Entra", _line(error)) from error
        # The chain's own word for "none of them is set up" is the same class as a refusal.
        if error.message.startswith("DefaultAzureCredential failed"):
            raise CredentialsMissing(url, [*_looked(), *_tried(error.message)], _REMEDY) from error
        reason = f"{_line(error)}; {_REMEDY[0].lower()}{_REMEDY[1:]}"
        raise CredentialsRefused(url, "get a token of Entra", reason=reason) from error
    except ValueError as error:
        raise ConfigError(f"{url}: the Entra identity is not well formed: {_line(error)}") from error


def _is_outage(error: BaseException | None) -> bool:
    """Tell whether Entra did not answer or was busy, which azure-identity wraps into a refusal."""
    from json import JSONDecodeError

    from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

    while error is not None:
        # Entra always answers in JSON: what does not is a gateway before it.
        if isinstance(error, ServiceRequestError | ServiceResponseError | JSONDecodeError):
            return True
        if isinstance(error, HttpResponseError) and (error.status_code or 0) in _BUSY:
            return True
        # msal has no attribute for the status.
        if type(error).__module__.startswith("msal") and _MSAL_BUSY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _line(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", error)).split())[:300]


def _looked() -> list[str]:
    return [
        "TIDEMILL_AZURE_*",
        "AZURE_STORAGE_CONNECTION_STRING, _KEY and _SAS_TOKEN",
        "AZURE_CLIENT_ID with its secret, certificate or federated token",
        "the managed identity",
        "az login",
    ]


def _tried(words: str) -> list[str]:
    """What each link of the chain said that is more than not being set up."""
    attempts = words.partition("Attempted credentials:")[2].partition("To mitigate")[0].split("\n\t")
    told = [" ".join(each.split()) for each in attempts if each.strip() and not _NOT_SET_UP.search(each)]
    return [f"and azure-identity said: {each[:300]}" for each in told]
