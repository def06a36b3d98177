"""Alarms reach a webhook once, and a webhook that fails holds nothing up."""

import contextlib
import http.server
import itertools
import json
import socketserver
import threading
import time

import pytest
from helpers.lines import Looks, rows

from recon_ad.line import follow, webhook
from recon_ad.line.alarms import Alarm, parse_period
from recon_ad.line.store import Key, Store


class Dripping(socketserver.BaseRequestHandler):
    """A server that sends an endless header, each byte soon enough for a socket's timeout."""

    def handle(self):
        with contextlib.suppress(OSError):
            self.request.recv(65536)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                self.request.sendall(b"a")
                time.sleep(0.02)
        self.server.ended.set()


def test_a_webhook_that_drips_is_cut_off_and_nobody_waits_for_it(monkeypatch):
    monkeypatch.setattr(webhook, "PATIENCE", 0.5)
    alarm = Alarm(1, 1e9, "score", "ewma", "high", "words", "500", None)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        server.ended = threading.Event()
        threading.Thread(target=server.serve_forever).start()
        hook = webhook.Webhook(f"http://127.0.0.1:{server.server_address[1]}/", name="a")
        begin, thread = time.monotonic(), None
        while thread is None or thread.error is None:
            assert not hook.take(alarm) and time.monotonic() - begin < 5
            thread = thread or hook._exchange
            time.sleep(0.01)
        assert "no answer within 0.5 s" in thread.error
        assert server.ended.wait(5)
        thread.join(5)
        assert not thread.is_alive()
        server.shutdown()


class Hook(http.server.BaseHTTPRequestHandler):
    """A webhook that refuses the first call."""

    def do_POST(self):
        calls = self.server.calls
        calls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(500 if len(calls) == 1 else 200)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def hook():
    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        server.calls = []
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


def test_alarms_are_logged_and_posted_once_also_after_a_restart_and_a_refusal(
    tmp_path, monkeypatch, hook, caplog
):
    monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
    line = tmp_path / "press 4"

    def fill():
        store = Store(line / "line.sqlite")
        for row in itertools.chain(rows(200), rows(50, first=201, seed=1, darker=0.1)):
            store.commit(Key(f"{row['id']}.png", 1, 1), row | {"latency": 0.1, "waiting": 0})
        store.close()

    def run(reference="200"):
        return follow.follow(
            line,
            references=[parse_period(text) for text in reference.split(",")],
            run_length=10_000.0,
            webhook=f"http://127.0.0.1:{hook.server_port}/",
            stop=Looks(),
        )

    fill()
    (alarm,) = run().alarms
    # Refused once, accepted once.
    assert [call["words"] for call in hook.calls] == [alarm.words] * 2
    assert hook.calls[0]["line"] == "press 4"
    assert sum(alarm.words in message for message in caplog.messages) == 1
    assert "Images are darker than before." in (line / "dashboard.html").read_text()
    run()
    assert len(hook.calls) == 2
    # A further period after it does not repeat it; with another reference it is another alarm.
    run("200,230..270")
    assert len(hook.calls) == 2
    run("190")
    assert [call["reference"] for call in hook.calls] == ["200", "200", "190"]
    assert {call["image"] for call in hook.calls} == {alarm.image}
    # The alarms of a new table in its place are new, even if they look the same.
    for file in line.glob("line.sqlite*"):
        file.unlink()
    fill()
    run()
    assert len(hook.calls) == 4
    (logged,) = map(json.loads, (line / "alarms.jsonl").read_text().splitlines())
    assert logged["image"] == alarm.image
    assert 'http-equiv="refresh"' in (line / "dashboard.html").read_text()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://[", "http://a b/", "gopher"])
def test_a_webhook_that_is_none_is_tried_again_and_holds_nothing_up(url):
    hook = webhook.Webhook(url, name="a")
    alarm = Alarm(1, 1e9, "score", "ewma", "high", "words", "500", None)
    assert not hook.take(alarm)
    assert not hook.take(alarm)  # immediately, because it is not yet time for the next try
    assert webhook.Webhook("", name="a").take(alarm)
