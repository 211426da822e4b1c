"""A small OpenAI-compatible server on this machine, with every failure that a provider has on a bad day."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(content, finish_reason="stop"):
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return 200, json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]})


def error(status, message="a bad day"):
    return status, json.dumps({"error": {"message": message}})


class ChatServer(ThreadingHTTPServer):
    """Replies with script(request, how often it was asked before) -> (status, body[, headers])."""

    daemon_threads = True

    def __init__(self, script, of=lambda content: content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.of = script, of
        self.asked, self.requests = Counter(), []
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def servers():
    """start(script, ...) -> a ChatServer that runs; all of them end with the block."""
    started = []

    def start(*arguments):
        server = ChatServer(*arguments)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = server.of(body["messages"][0]["content"])
        with server.lock:
            before = server.asked[request]
            server.asked[request] += 1
            server.requests.append((self.path, self.headers.get("authorization"), body))
            server.now += 1
            server.most = max(server.most, server.now)
        status, reply, *headers = server.script(request, before)
        with server.lock:
            server.now -= 1
        try:
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers[0] if headers else {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.encode())
        except OSError:
            pass  # the client gave up waiting

    def log_message(self, *args):
        pass
