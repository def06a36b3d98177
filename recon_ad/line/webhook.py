"""Alarms to a web address, without ever waiting for it.

Each exchange runs in a thread of its own and has to be over in `PATIENCE` seconds: a server that
sends a byte now and then, or headers without end, would else hold up the monitor for days. What is
late is cut off at its socket, which ends the thread.
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

PATIENCE = 5.0  # s that an exchange may take, from the name's look-up to the answer
QUICK = 0.2  # s in which most servers answer
PAUSES = (1.0, 300.0)  # s between two tries, at first and at most

logger = logging.getLogger("recon_ad")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its content."""

    def redirect_request(self, *args: Any) -> None:
        """Returns None, of which urllib makes an error."""
        return None


class _Exchange(threading.Thread):
    """One POST: `error` is "" once the server took it, None until then."""

    def __init__(self, request: urllib.request.Request):
        super().__init__(daemon=True)
        self.error: str | None = None
        self.late = time.monotonic() + PATIENCE
        self._request = request
        self._sockets: list[socket.socket] = []

    def run(self) -> None:
        """Posts; see `error`."""
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
        """Ends what is late."""
        self.error = f"no answer within {PATIENCE:g} s"
        for one in self._sockets:
            with suppress(OSError):  # it is closed already
                one.shutdown(socket.SHUT_RDWR)


class _Keeping:
    """Keeps in a list the sockets of the connections that a handler opens."""

    def __init__(self, sockets: list[socket.socket]):
        super().__init__()
        self._sockets = sockets


class _Plain(_Keeping, urllib.request.HTTPHandler):
    """HTTP by connections whose sockets are kept."""

    def http_open(self, req: urllib.request.Request) -> Any:
        """Opens the address."""
        return self.do_open(_kept(http.client.HTTPConnection, self._sockets), req)


class _Secure(_Keeping, urllib.request.HTTPSHandler):
    """HTTPS in the same way."""

    def https_open(self, req: urllib.request.Request) -> Any:
        """Opens the address."""
        return self.do_open(_kept(http.client.HTTPSConnection, self._sockets), req)


def _kept(kind: type[http.client.HTTPConnection], sockets: list[socket.socket]) -> Any:
    class Connection(kind):  # type: ignore[misc,valid-type]
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    return Connection


class Webhook:
    """Posts alarms, and waits longer and longer where it is not let.

    Args:
      url: http or https; "" posts nothing.
      name: of the line.
    """

    def __init__(self, url: str, *, name: str):
        self._url, self._name = url, name
        self._pause, self._next = PAUSES[0], 0.0
        self._exchange: _Exchange | None = None

    def take(self, alarm: Alarm) -> bool:
        """Begins to post the alarm, or looks how that went; True once it was taken, or where there
        is no webhook. Until then it is to be called again with the same alarm."""
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
            "the webhook did not take an alarm (%s); tried again after %g s", error, self._pause
        )
        self._next = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, PAUSES[1])
