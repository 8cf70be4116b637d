"""Access to the server: the host and the origin of a request, and its token."""

import hmac
import os
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from vpt.errors import SpecError
from vpt.serving.responses import RequestError, error_response

TOKEN_VARIABLE = "VPT_SERVE_TOKEN"
_MIN_TOKEN_LENGTH = 16
_PROBES = ("/healthz", "/readyz")  # asked by address, without a token
_PUBLIC = (*_PROBES, "/", "/page.js", "/page.css", "/openapi.json")


def read_token(path: Path | None) -> str | None:
    """Return the token of the server.

    Args:
        path: File with the token. Default: the environment variable `VPT_SERVE_TOKEN`.

    Returns:
        The token, or None if there is neither.

    Raises:
        SpecError: The file cannot be read, or the token is too short or has other characters than visible ASCII.
    """
    source, text = f"the variable {TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE)
    if path is not None:
        try:
            source, text = f"{path}", path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"the token file {path} cannot be read ({error}); give a text file") from error
    if text is None:
        return None
    token = text.strip()
    if len(token) < _MIN_TOKEN_LENGTH or not all("!" <= character <= "~" for character in token):
        raise SpecError(
            f"the token in {source} has {len(token)} characters; it needs at least {_MIN_TOKEN_LENGTH} visible ASCII "
            "characters: openssl rand -hex 32"
        )
    return token


class AccessControl:
    """Middleware that refuses foreign hosts, foreign origins, and requests without the token."""

    def __init__(
        self, app: ASGIApp, allowed_hosts: Collection[str] | None, token: str | None, origin_hosts: Collection[str] = ()
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            allowed_hosts: Accepted `Host` headers. Default: any.
            token: The token of the server. Default: none is needed.
            origin_hosts: Hosts of pages that may send requests, beside that of the `Host` header. Default: none.
        """
        self._app = app
        self._allowed_hosts = None if allowed_hosts is None else _host_names(allowed_hosts)
        self._origin_hosts = _host_names(origin_hosts)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request.

        Args:
            scope: The request.
            receive: Returns the next part of the body.
            send: Sends a part of the response.
        """
        app = self._app
        if scope["type"] == "http":
            request = Request(scope)
            try:
                self._check(request)
            except RequestError as error:
                app = await error_response(request, error)
        await app(scope, receive, send)

    def _check(self, request: Request) -> None:
        host, origin, path = request.headers.get("host", ""), request.headers.get("origin"), request.scope["path"]
        if self._allowed_hosts is not None and path not in _PROBES and _host_name(host) not in self._allowed_hosts:
            known = ", ".join(sorted(self._allowed_hosts))
            raise RequestError(403, f"the host is {host!r}; allowed are {known}, see --allowed-host")
        page = None if origin is None else origin.partition("://")[2]
        if page is not None and page != host and _host_name(page) not in self._origin_hosts:
            raise RequestError(
                403, f"the origin is {origin!r}; only pages of this server may send requests, see --allowed-host"
            )
        if self._token is not None and path not in _PUBLIC:
            kind, _, given = request.headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
                raise RequestError(
                    401, "the token is missing or wrong; send the header Authorization: Bearer TOKEN",
                    headers={"WWW-Authenticate": "Bearer"},
                )  # fmt: skip


def _host_names(hosts: Collection[str]) -> frozenset[str]:
    """Return hosts as those of requests are compared: in lower case, without a port."""
    return frozenset(_host_name(host) or host.lower() for host in hosts)


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # such as "[::1"
        return None
