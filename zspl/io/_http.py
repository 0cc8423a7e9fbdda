"""Opening web addresses: a short wait for the connection, a longer one for data."""

import http.client
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any

_AGENT = "zspl"


def open_url(
    url: str,
    headers: Mapping[str, str],
    *,
    authorization: str | None,
    connect_timeout: float,
    timeout: float,
) -> http.client.HTTPResponse:
    """Request `url` and return the response, redirects to http and https followed.

    Args:
        url: An http or https address.
        headers: Sent to every server on the way.
        authorization: Sent to the first server only: a redirect may lead to somebody else's.
        connect_timeout: Seconds to wait for the connection.
        timeout: Seconds to wait for the next bytes.

    Raises:
        urllib.error.HTTPError: if a server refuses.
        urllib.error.URLError: if no connection comes about.
        OSError: if the connection breaks.
    """
    request = urllib.request.Request(url, headers={"User-Agent": _AGENT, **headers})
    if authorization is not None:
        request.add_unredirected_header("Authorization", authorization)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(connect_timeout),
        _Https(connect_timeout),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    response: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    return response


class _Http(urllib.request.HTTPHandler):
    """Speaks http with the short wait."""

    def __init__(self, connect_timeout: float) -> None:
        super().__init__()
        self._connect_timeout = connect_timeout

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        wait = self._connect_timeout

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                _connect_within(self, super().connect, wait)

        return self.do_open(Connection, request)


class _Https(urllib.request.HTTPSHandler):
    """Speaks https with the short wait."""

    def __init__(self, connect_timeout: float) -> None:
        super().__init__()
        self._connect_timeout = connect_timeout

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        wait = self._connect_timeout

        class Connection(http.client.HTTPSConnection):
            def connect(self) -> None:
                _connect_within(self, super().connect, wait)

        return self.do_open(Connection, request, context=ssl.create_default_context())


def _connect_within(connection: http.client.HTTPConnection, connect: Any, wait: float) -> None:  # noqa: ANN401
    patience = connection.timeout
    connection.timeout = wait if patience is None else min(patience, wait)
    connect()
    connection.timeout = patience
    found: socket.socket = connection.sock
    found.settimeout(patience)
