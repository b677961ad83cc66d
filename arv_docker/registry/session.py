# SPDX-License-Identifier: Apache-2.0
"""The conversation with one registry: requests with the authorization it asks for, and refusals in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..errors import RegistryDenied, RegistryError, UnsupportedByRegistry, UsageError
from ..model.reference import DEFAULT_REGISTRY
from .access import Access
from .answer import Answer
from .authorization import Authorization, Scopes
from .credentials import Provider, Wallet, configured_provider
from .http import Body, Http, host_name, is_local, origin_of
from .patience import Attempts, Patience

#: Docker Hub's API has a host of its own.
_HUB_API = "registry-1.docker.io"


class Session:
    """Requests to one registry, with its authorization. May be used by several threads at once."""

    def __init__(
        self,
        host: str,
        provider: Provider | None = None,
        *,
        insecure: bool = False,
        patience: Patience | None = None,
        access: Access | None = None,
        role: str = "registry",
    ) -> None:
        """``host`` may have a port. ``provider`` gives credentials; those of ``access`` unless given, which says
        how the user gets to registries. ``insecure`` is HTTP without TLS, for a registry on this machine alone: raises
        UsageError for one whose name is not of this machine. ``role`` is what messages call the host: registry, or
        mirror."""
        access = access or Access()
        if insecure and not is_local(host_name(host)):
            raise UsageError(
                f"{host}: --insecure is for registries on this machine (localhost, 127.0.0.1, [::1]) alone. "
                f"Put the certificate of this one's authority into {next(iter(access.certificates), 'certs.d')}/{host}."
            )
        self.host = host
        address = _HUB_API if host == DEFAULT_REGISTRY else host
        self.http = Http(address, plain=insecure, patience=patience, access=access, role=role)
        self.wallet = Wallet(provider or configured_provider(host, "", access.logins))
        self._authorization = Authorization(self.http, self.wallet)

    @contextmanager
    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        scopes: Scopes,
        step: str,
        attempts: Attempts | None = None,
        body: Body = None,
    ) -> Iterator[Answer]:
        """The answer to one request with whatever authorization the registry wants for ``scopes``.

        What it refuses is renewed once. ``path`` may be a whole URL, as registries give them; to another host no
        authorization goes. ``attempts`` are those that this is one of. Raises RegistryError: RegistryDenied if what
        was renewed is refused too.
        """
        attempts = attempts or Attempts(self.http.patience)
        url = self.http.absolute_url(self.http.base, path, step)
        if origin_of(url) != origin_of(self.http.base):
            self.http.check_redirect(self.http.base, url, step)
            with self.http.send(method, url, headers or {}, body=body, step=step, attempts=attempts) as answer:
                yield answer
                return
        authorization = self._authorization_for(scopes, step, attempts)
        renewals = 1 if authorization else 2  # the first only says what the registry wants
        while True:
            sent = dict(headers or {})
            if authorization:
                sent["Authorization"] = authorization
            with self.http.send(method, url, sent, body=body, step=step, attempts=attempts) as answer:
                renewed = self._renew(answer, scopes, authorization, step, attempts) if renewals else None
                if renewed is None:
                    if answer.status == 401 and not answer.is_elsewhere:
                        raise self._denial(answer.refusal(), step, scopes)
                    yield answer
                    return
            authorization = renewed
            renewals -= 1

    def _authorization_for(self, scopes: Scopes, step: str, attempts: Attempts) -> str | None:
        try:
            return self._authorization.header(scopes, attempts)
        except RegistryDenied as error:
            raise self._denial(error, step, scopes) from None

    def _renew(
        self, answer: Answer, scopes: Scopes, authorization: str | None, step: str, attempts: Attempts
    ) -> str | None:
        """Another authorization after a refusal; None without a refusal, or without another."""
        if answer.is_elsewhere:
            return None
        if answer.status == 401:
            wanted = ", ".join(answer.headers.getlist("WWW-Authenticate"))
            try:
                return self._authorization.renew(scopes, wanted, authorization, attempts)
            except RegistryDenied as error:
                raise self._denial(error, step, scopes) from None
        if answer.status == 403 and authorization:
            return self._authorization.renew_expired(scopes, authorization, attempts)
        return None

    def _denial(self, error: RegistryError, step: str, scopes: Scopes) -> RegistryError:
        """The error for a refusal, in words for somebody who has no credentials: the name may be wrong as well."""
        if self.wallet.credentials() is not None:
            return error
        is_pull = all(scope.startswith("repository:") and scope.endswith(":pull") for scope in scopes)
        reason = "there is no such image, or it needs a login" if is_pull else "it needs a login"
        return RegistryDenied(
            f"{self.host}: {step}: {reason}. {'Check the name, or log' if is_pull else 'Log'} in: docker login "
            f"{self.host}.",
            detail="\n".join(filter(None, (error.message, error.detail))),
            status=error.status,
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def unsupported_error(self, answer: Answer, step: str, what: str) -> UnsupportedByRegistry:
        """The error for a missing feature of the registry."""
        message = f"{self.host}: {step}: unsupported. The registry does not allow {what}."
        return UnsupportedByRegistry(message, detail=answer.refusal().detail, status=answer.status)
