"""Who we are to AWS and where its S3 is: the settings, else what botocore's session finds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from time import time
from typing import Any

from tidemill_core.errors import ConfigError, StorageError
from tidemill_core.extras import needs_extra
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._aws_hosts import AccessPoint, Bucket, Site, base_url, checked_region, is_region
from tidemill_core.storage._http import Headers, Place, Reply, Request
from tidemill_core.storage._net import checked_endpoint, trusted
from tidemill_core.storage._sigv4 import Credentials, sign
from tidemill_core.storage.errors import CredentialsMissing, CredentialsRefused, StoreUnavailable

_ASK_AGAIN_S = 300
"""How long a reader keeps keys that may change; botocore renews them ten minutes before their end."""
_WRONG_REGION = frozenset({301, 307, 400})
_TOLD_REGION = re.compile(rb"<Region>([^<]+)</Region>")
_EXPIRED = re.compile(rb"<Code>(ExpiredToken|TokenRefreshRequired|InvalidToken)</Code>")
_IDENTITY_CODES = frozenset(
    {
        "ExpiredToken",
        "TokenRefreshRequired",
        "InvalidToken",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
    }
)
_CONFIG_ERRORS = frozenset(
    {"ProfileNotFound", "PartialCredentialsError", "ConfigParseError", "InvalidConfigError", "ConfigNotFound"}
)
_TRANSIENT_CODES = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable"})
_TRANSIENT_ERRORS = frozenset({"HTTPClientError", "MetadataRetrievalError", "ConnectionError"})
_REMEDY = "Set TIDEMILL_S3_ACCESS_KEY_ID and TIDEMILL_S3_SECRET_ACCESS_KEY, or sign in (aws configure, aws sso login)"

_regions: dict[tuple[str | None, str], str] = {}
"""Regions that S3 told, by endpoint and bucket: every store of this process asks the right one at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What settings and AWS's own configuration say together."""

    site: Site
    ca_bundle: str | None
    session: Callable[[], Any]


class AwsAccess:
    """Access to one bucket: keys that renew themselves, and a region that S3 may correct.

    Raises:
        ConfigError: Half a pair of keys, an unknown profile, or an address that is none.
    """

    def __init__(self, url: str, bucket: Bucket, options: StorageOptions) -> None:
        self._url, self._bucket, self._options = url, bucket, options
        self._static = _static_keys(options)
        self._lock = Lock()
        self._given: Given | None = None
        self._place: Place | None = None
        self._provider: Any = None
        self._is_region_sure = False

    @property
    def pays(self) -> bool:
        """We pay for the requests."""
        return self._options.s3_requester_pays

    @property
    def site(self) -> Site:
        """Region, endpoint and kind of host in force."""
        return self._settled().site

    def place(self) -> Place:
        """Where requests go now."""
        place = self._place
        if place is None:
            given = self._settled()
            place = Place.of(base_url(self._url, self._bucket, given.site), ca_bundle=given.ca_bundle)
            self._place = place
        return place

    def signed(self, request: Request, place: Place) -> Headers:
        """Sign with the keys of the time."""
        if self.pays:
            request = request.having({"x-amz-request-payer": "requester"})
        keys = self.keys()
        if keys is None:
            return {**request.headers, "host": place.host}
        region = self.site.region
        return sign(request, keys, host=place.host, base_path=place.path, region=region, now=datetime.now(UTC))

    def keys(self) -> Credentials | None:
        """The keys in force; None if anonymous requests are wanted.

        Raises:
            CredentialsMissing: None are found.
            CredentialsRefused: They cannot be renewed.
            StoreUnavailable: Their source does not answer.
        """
        if self._static is not None:
            return self._static
        if self._is_anonymous():
            return None
        with self._lock, _in_our_words(self._url):
            if self._provider is None:
                self._provider = self._settled().session().get_credentials()
            if self._provider is None:
                raise CredentialsMissing(self._url, list(self._looked()), _REMEDY)
            frozen = self._provider.get_frozen_credentials()
        return Credentials(access_key=frozen.access_key, secret_key=frozen.secret_key, token=frozen.token)

    def expires_at(self) -> int | None:
        """When a reader should ask for the keys again, in seconds since 1970; None if they do not change."""
        return None if self._provider is None else int(time()) + _ASK_AGAIN_S

    def corrected(self, sent: Headers, reply: Reply) -> str | None:
        """Take a region that S3 tells, and new keys for expired ones."""
        if reply.status in _WRONG_REGION and self._is_moved(reply):
            return "region"
        # The answer to a HEAD has no body, so that a bare 400 may be an expired token, too.
        is_expired = bool(_EXPIRED.search(reply.body)) or (reply.status == HTTPStatus.BAD_REQUEST and not reply.body)
        if is_expired and self._static is None and not self._is_anonymous():
            return "keys" if self._is_renewed(sent) else None
        return None

    def advice(self, reply: Reply, code: str) -> tuple[bool, str]:
        """What to do about a refusal."""
        if code in _IDENTITY_CODES:
            return True, f"the keys of {self._source()} are not accepted; {_REMEDY[0].lower()}{_REMEDY[1:]}"
        if reply.status in {401, 403}:
            return False, "anonymous requests were asked for" if self._is_anonymous() else f"asked as {self._source()}"
        if reply.status in _WRONG_REGION and (region := _told_region(reply)):
            return False, f"the bucket is in {region}"
        return False, ""

    def make_sure(self, ask: Callable[[], object]) -> None:
        """Ask S3 once where the bucket is, for readers that cannot correct their region."""
        if not self._is_region_sure and self.site.endpoint_url is None and self._bucket.account is None:
            ask()
        self._is_region_sure = True

    def _is_anonymous(self) -> bool:
        return self._options.anonymous and self._static is None and self._options.s3_profile is None

    def _settled(self) -> Given:
        if self._given is None:
            given = _given(self._options)
            known = self._bucket.region or _regions.get((given.site.endpoint_url, self._bucket.name))
            if known:
                given = Given(site=given.site.moved(known), ca_bundle=given.ca_bundle, session=given.session)
            self._given = given
        return self._given

    def _is_moved(self, reply: Reply) -> bool:
        """Go where S3 says the bucket is; a region given for an access point stays."""
        region, given = _told_region(reply), self._settled()
        if region is None or region == given.site.region or isinstance(self._bucket, AccessPoint):
            return False
        _regions[given.site.endpoint_url, self._bucket.name] = region
        self._given = Given(site=given.site.moved(region), ca_bundle=given.ca_bundle, session=given.session)
        self._place = None
        return True

    def _is_renewed(self, sent: Headers) -> bool:
        """Look for other keys than were sent: another thread's, or those that a new session finds."""
        used = sent.get("x-amz-security-token")
        if used is None:
            return False
        with self._lock, _in_our_words(self._url):
            if self._provider is not None and self._provider.get_frozen_credentials().token != used:
                return True
            found = _session(self._options.s3_profile).get_credentials()
            if found is None or found.get_frozen_credentials().token == used:
                return False
            self._provider = found
        return True

    def _looked(self) -> Iterator[str]:
        yield "TIDEMILL_S3_ACCESS_KEY_ID"
        yield "AWS_ACCESS_KEY_ID"
        profile = self._options.s3_profile or os.environ.get("AWS_PROFILE") or "default"
        yield f"the profile {profile!r} of {' and '.join(map(str, _files()))}"
        yield "AWS_WEB_IDENTITY_TOKEN_FILE"
        yield "the container's and the instance's role"

    def _source(self) -> str:
        if self._static is not None:
            return f"the settings ({self._static.access_key})"
        method = getattr(self._provider, "method", None) or "AWS's chain"
        return f"{method} ({getattr(self._provider, 'access_key', '')})"


def _static_keys(options: StorageOptions) -> Credentials | None:
    access, secret, token = options.s3_access_key_id, options.s3_secret_access_key, options.s3_session_token
    if bool(access) != bool(secret):
        missing = "s3_secret_access_key" if access else "s3_access_key_id"
        raise ConfigError(f"only half of a pair of S3 keys is set: {missing} (TIDEMILL_{missing.upper()}) is missing")
    if not access or secret is None:
        if token:
            raise ConfigError("s3_session_token is set without s3_access_key_id and s3_secret_access_key")
        return None
    return Credentials(
        access_key=access, secret_key=secret.get_secret_value(), token=token.get_secret_value() if token else None
    )


def _given(options: StorageOptions) -> Given:
    """Ask the settings first, then AWS's configuration, if there is any."""
    endpoint = options.s3_endpoint_url and checked_endpoint(options.s3_endpoint_url, "s3_endpoint_url")
    region = options.s3_region and checked_region(options.s3_region, "s3_region")
    if options.s3_access_key_id and not options.s3_profile and not _is_configured():
        site = Site(region=region or "us-east-1", endpoint_url=endpoint)
        return Given(site=site, ca_bundle=trusted(options.ca_bundle), session=lambda: _session(None))
    with _in_our_words("AWS's configuration"):
        session = _session(options.s3_profile)
        configured = _Configured(session)
        site = Site(
            region=region or checked_region(configured.region(), "the region of AWS's configuration"),
            endpoint_url=endpoint or configured.endpoint_url(),
            is_fips=configured.is_on("use_fips_endpoint"),
            is_dual_stack=configured.is_on("use_dualstack_endpoint"),
            is_accelerated=configured.is_on("use_accelerate_endpoint"),
            is_virtual={"path": False, "virtual": True}.get(configured.s3.get("addressing_style", "")),
        )
        ca_bundle = str(options.ca_bundle) if options.ca_bundle else session.get_config_variable("ca_bundle")
    return Given(site=site, ca_bundle=ca_bundle or trusted(None), session=lambda: session)


class _Configured:
    """The documented settings of AWS's variables and files that concern S3."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._profile: Mapping[str, Any] = session.get_scoped_config()
        s3 = self._profile.get("s3")
        self.s3: Mapping[str, str] = s3 if isinstance(s3, dict) else {}

    def region(self) -> str:
        """AWS_REGION, AWS_DEFAULT_REGION, or the profile's."""
        return os.environ.get("AWS_REGION") or self._session.get_config_variable("region") or "us-east-1"

    def endpoint_url(self) -> str | None:
        """The endpoint of S3, or of all services; see docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints."""
        if self._session.get_config_variable("ignore_configured_endpoint_urls"):
            return None
        services = self._session.full_config.get("services", {}).get(self._profile.get("services"), {})
        own = services.get("s3")
        candidates = (
            ("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL_S3")),
            ("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT_URL")),
            ("endpoint_url of the profile's services", own.get("endpoint_url") if isinstance(own, dict) else None),
            ("endpoint_url of the AWS profile", self._profile.get("endpoint_url")),
        )
        return next((checked_endpoint(url, name) for name, url in candidates if url), None)

    def is_on(self, name: str) -> bool:
        """A switch, in the profile's own ``s3`` section or for all services."""
        own = self.s3.get(name)
        if own is not None:
            return str(own).lower() == "true"
        if name == "use_accelerate_endpoint":
            return False
        return bool(self._session.get_config_variable(name))


def _session(profile: str | None) -> Any:
    with needs_extra():
        from botocore.session import Session  # type: ignore[import-untyped]

    return Session(profile=profile)


def _files() -> tuple[Path, Path]:
    return (
        Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser(),
        Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser(),
    )


def _is_configured() -> bool:
    """Tell whether AWS's variables or files say anything; if not, botocore need not be loaded."""
    return any(name.startswith("AWS_") for name in os.environ) or any(file.exists() for file in _files())


def _told_region(reply: Reply) -> str | None:
    found = _TOLD_REGION.search(reply.body)
    region = reply.headers.get("x-amz-bucket-region") or (found[1].decode("utf-8", "replace") if found else "")
    return region if is_region(region) else None


@contextmanager
def _in_our_words(url: str) -> Iterator[None]:
    """Turn botocore's errors into ours: configuration, refused, or unavailable for now."""
    try:
        yield
    except (StorageError, ConfigError):
        raise
    except Exception as error:  # botocore's errors share no base class; what is none of them is raised again
        if not type(error).__module__.startswith("botocore"):
            raise
        raise _ours(url, error) from error


def _ours(url: str, error: Exception) -> StorageError | ConfigError:
    names = {each.__name__ for each in type(error).__mro__}
    words = " ".join(str(error).split())[:300]
    if names & _CONFIG_ERRORS:
        return ConfigError(f"{url}: {words}; see TIDEMILL_S3_PROFILE, AWS_PROFILE and {_files()[0]}")
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    if names & _TRANSIENT_ERRORS or code in _TRANSIENT_CODES:
        return StoreUnavailable(url, "find credentials", words)
    return CredentialsRefused(url, "find credentials", reason=f"{words}; sign in anew (aws sso login, aws configure)")
