"""Posting of alarms to a web address, without ever blocking the monitor.

Each exchange runs in its own thread and must finish within `PATIENCE` seconds. Otherwise a server
that sends a byte now and then, or endless headers, would block the monitor for days. A late
exchange is cut off at its socket, which ends the thread.
"""

import http.client
import json
import logging
import socket
import threading
import time
import urllib.request
from contextlib import suppress
from typing import Any

from recon_ad.line.alarms import Alarm

PATIENCE = 5.0  # s, longest exchange, from the name look-up to the answer
QUICK = 0.2  # s within which most servers answer
PAUSES = (1.0, 300.0)  # s, first and longest pause between two tries

logger = logging.getLogger("recon_ad")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Handler that rejects redirects, because urllib would turn the POST into an empty GET."""

    def redirect_request(self, *args: Any) -> None:
        """Return None, for which urllib raises an error."""
        return None


class _Exchange(threading.Thread):
    """One POST. `error` is None until it is over, and "" if the server accepted it."""

    def __init__(self, request: urllib.request.Request):
        super().__init__(daemon=True)
        self.error: str | None = None
        self.late = time.monotonic() + PATIENCE
        self._request = request
        self._sockets: list[socket.socket] = []

    def run(self) -> None:
        """Post the request and set `error`."""
        opener = urllib.request.build_opener(
            _NoRedirects, _Plain(self._sockets), _Secure(self._sockets)
        )
        try:
            with opener.open(self._request, timeout=PATIENCE):
                error = ""
        except (OSError, ValueError, http.client.HTTPException) as reason:
            error = str(reason) or type(reason).__name__
        self.error = error if self.error is None else self.error

    def cut(self) -> None:
        """End the exchange because it is late."""
        self.error = f"no answer within {PATIENCE:g} s"
        for one in self._sockets:
            with suppress(OSError):  # already closed
                one.shutdown(socket.SHUT_RDWR)


class _Keeping:
    """Mixin that collects the sockets of the connections that a handler opens."""

    def __init__(self, sockets: list[socket.socket]):
        super().__init__()
        self._sockets = sockets


class _Plain(_Keeping, urllib.request.HTTPHandler):
    """HTTP handler whose sockets are collected."""

    def http_open(self, req: urllib.request.Request) -> Any:
        """Open the address."""
        return self.do_open(_kept(http.client.HTTPConnection, self._sockets), req)


class _Secure(_Keeping, urllib.request.HTTPSHandler):
    """HTTPS handler whose sockets are collected."""

    def https_open(self, req: urllib.request.Request) -> Any:
        """Open the address."""
        return self.do_open(_kept(http.client.HTTPSConnection, self._sockets), req)


def _kept(kind: type[http.client.HTTPConnection], sockets: list[socket.socket]) -> Any:
    class Connection(kind):  # type: ignore[misc,valid-type]
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    return Connection


class Webhook:
    """Client that posts alarms, with growing pauses after failures.

    Args:
      url: Address with http or https. "" posts nothing.
      name: Name of the line.
    """

    def __init__(self, url: str, *, name: str):
        self._url, self._name = url, name
        self._pause, self._next = PAUSES[0], 0.0
        self._exchange: _Exchange | None = None

    def take(self, alarm: Alarm) -> bool:
        """Start to post the alarm, or check on the post that is running.

        Returns:
          True once the server has accepted the alarm, or if no webhook is set. Until then the
          method must be called again with the same alarm.
        """
        if not self._url:
            return True
        if self._exchange is None:
            if time.monotonic() < self._next:
                return False
            content = json.dumps({"line": self._name} | alarm._asdict()).encode()
            headers = {"Content-Type": "application/json"}
            try:
                self._exchange = _Exchange(urllib.request.Request(self._url, content, headers))
            except ValueError as error:
                self._failed(str(error))
                return False
            self._exchange.start()
            self._exchange.join(QUICK)
        if self._exchange.error is None and time.monotonic() > self._exchange.late:
            self._exchange.cut()
        if (error := self._exchange.error) is None:
            return False
        self._exchange = None
        if error:
            self._failed(error)
            return False
        self._pause = PAUSES[0]
        return True

    def _failed(self, error: str) -> None:
        logger.warning(
            "the webhook did not accept an alarm (%s); next try in %g s", error, self._pause
        )
        self._next = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, PAUSES[1])
