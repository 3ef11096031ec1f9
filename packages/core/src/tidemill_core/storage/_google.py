"""Who we are to Google, and where its storage is: the settings, else what google-auth finds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from tidemill_core.errors import ConfigError
from tidemill_core.extras import needs_extra
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._http import Headers, Place, Reply, Request
from tidemill_core.storage._net import checked_endpoint, proxy_for, proxy_url, quiet, tls_context, trusted
from tidemill_core.storage.errors import CredentialsMissing, CredentialsRefused, StoreUnavailable

_GOOGLE = "https://storage.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_EMULATOR = "STORAGE_EMULATOR_HOST"
# Take stored gzip bytes as they are; without it GCS unpacks them on the way.
_GZIP = {"Accept-Encoding": "gzip"}
_REMEDY = "Set TIDEMILL_GCS_CREDENTIALS_FILE, or sign in (gcloud auth application-default login)"


class GoogleAccess:
    """Access to GCS: a bearer token that renews itself; an emulator of the environment is asked anonymously.

    Raises:
        ConfigError: The endpoint is no URL.
    """

    def __init__(self, url: str, options: StorageOptions) -> None:
        self._url, self._file = url, options.gcs_credentials_file
        self._quota_project = options.gcs_quota_project
        self._ca_bundle = trusted(options.ca_bundle)
        endpoint, is_emulator = _endpoint(options)
        self.is_anonymous = self._file is None and (options.anonymous or is_emulator)
        self._place = Place.of(endpoint, ca_bundle=self._ca_bundle)
        self._lock = Lock()
        self._credentials: Any = None

    @property
    def is_google(self) -> bool:
        """Google itself is asked, at its public address."""
        return self._place.origin == _GOOGLE

    def place(self) -> Place:
        """Where requests go."""
        return self._place

    def signed(self, request: Request, place: Place) -> Headers:  # noqa: ARG002  # GCS signs no host
        """Add the token of the time, and the project that pays."""
        if self.is_anonymous:
            return {**request.headers, **_GZIP}
        headers = {**request.headers, **_GZIP, "Authorization": f"Bearer {self.token()}"}
        project = self._quota_project or self._credentials.quota_project_id
        if project:
            headers["x-goog-user-project"] = project
        return headers

    def token(self) -> str:
        """The token in force, renewed before it ends.

        Raises:
            CredentialsMissing: Nothing says who we are.
            CredentialsRefused: Google does not renew the token.
            StoreUnavailable: Who issues tokens does not answer, or is busy.
        """
        with self._lock, self._in_our_words():
            if self._credentials is None:
                self._credentials = self._found()
            if not self._credentials.valid:
                self._credentials.refresh(self._transport())
            return str(self._credentials.token)

    def expires_at(self) -> int | None:
        """When the token ends, in seconds since 1970."""
        expiry = self._credentials.expiry
        return int(expiry.replace(tzinfo=UTC).timestamp()) if expiry else None

    def corrected(self, sent: Headers, reply: Reply) -> str | None:
        """Take a new token for one that is not accepted any more."""
        if reply.status != HTTPStatus.UNAUTHORIZED or self.is_anonymous:
            return None
        with self._lock, self._in_our_words():
            if sent.get("Authorization") == f"Bearer {self._credentials.token}":
                self._credentials.refresh(self._transport())
        return "token"

    def advice(self, reply: Reply, code: str) -> tuple[bool, str]:  # noqa: ARG002  # GCS has only statuses
        """What to do about a refusal."""
        if reply.status == HTTPStatus.UNAUTHORIZED:
            if self.is_anonymous:
                return True, "anonymous requests are not allowed here"
            return True, f"the credentials of {self._source()} are not accepted; {_REMEDY[0].lower()}{_REMEDY[1:]}"
        if reply.status == HTTPStatus.FORBIDDEN:
            return False, "asked anonymously" if self.is_anonymous else f"asked as {self._source()}"
        return False, ""

    def _source(self) -> str:
        name = getattr(self._credentials, "service_account_email", None)
        return str(name or self._file or os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or "Google's default")

    def _transport(self) -> Any:
        import google.auth.transport.urllib3

        transport: Any = google.auth.transport.urllib3
        return transport.Request(_Fetcher(self._ca_bundle))

    def _found(self) -> Any:
        with needs_extra():
            import google.auth
            from google.auth.credentials import with_scopes_if_required
            from google.auth.exceptions import DefaultCredentialsError

        quiet("google.auth")
        auth: Any = google.auth
        try:
            with warnings.catch_warnings():
                # It warns of files that come from others; this one its user has named.
                warnings.simplefilter("ignore")
                if self._file is None:
                    found, _ = auth.default(request=self._transport())
                else:
                    found, _ = auth.load_credentials_from_file(str(self._file), request=self._transport())
            # Scopes come afterwards: with them, federated credentials ask another service for their project at once.
            scoped: Any = with_scopes_if_required
            return scoped(found, [_SCOPE])
        # What a file of another shape brings about in the library is any of these.
        except (DefaultCredentialsError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            words = " ".join(str(error).split())[:300]
            named = self._file or os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
            if named:
                raise ConfigError(
                    f"{self._url}: the Google credentials file {named} cannot be used: {words}"
                ) from error
            raise CredentialsMissing(self._url, _looked(), _REMEDY) from error

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        """Turn google-auth's errors into ours: refused, or unavailable for now."""
        with needs_extra():
            from google.auth.exceptions import GoogleAuthError, TransportError

        try:
            yield
        except GoogleAuthError as error:
            words = " ".join(str(error.args[0] if error.args else error).split())[:300]
            if isinstance(error, TransportError) or getattr(error, "retryable", False):
                raise StoreUnavailable(self._url, "renew the Google token", words) from error
            reason = f"{words}; {_REMEDY[0].lower()}{_REMEDY[1:]}"
            raise CredentialsRefused(self._url, "renew the Google token", reason=reason) from error


class _Fetcher:
    """Sends the requests of google-auth by the same proxies and authorities as ours."""

    def __init__(self, ca_bundle: str | None) -> None:
        self._ca_bundle = ca_bundle

    def request(self, method: str, url: str, **more: Any) -> Any:
        """Send one request; takes what `urllib3.PoolManager.request` takes."""
        import urllib3

        origin = "://".join(urlsplit(url)[:2])
        context = tls_context(self._ca_bundle)
        proxy, address = proxy_for(origin), proxy_url(origin)
        if proxy is None or address is None:
            return urllib3.PoolManager(ssl_context=context).request(method, url, **more)
        manager = urllib3.ProxyManager(address, proxy_headers=dict(proxy.headers), ssl_context=context)
        return manager.request(method, url, **more)


def _endpoint(options: StorageOptions) -> tuple[str, bool]:
    """The endpoint, and whether it is an emulator that the environment names."""
    if options.gcs_endpoint_url:
        return checked_endpoint(options.gcs_endpoint_url, "gcs_endpoint_url"), False
    if emulator := os.environ.get(_EMULATOR):
        return checked_endpoint(emulator if "://" in emulator else f"http://{emulator}", _EMULATOR), True
    return _GOOGLE, False


def _looked() -> list[str]:
    folder = os.environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
    file = Path(folder).expanduser() / "application_default_credentials.json"
    return ["TIDEMILL_GCS_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS", str(file), "the metadata server"]
