"""The remote judge against a small server on this machine, with every failure that a provider has on a bad day."""

import logging
import socket
import threading
import time

import pytest
from chat_server import completion, error, servers

from seal_jax.domains.domain import Answered
from seal_jax.errors import UserError
from seal_jax.judges import endpoint, remote

KEY = "sk-very-secret-0123456789"


def answer_in(request):
    return request.split("Student's answer: ")[1].split("\n")[0]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    with servers() as start:
        yield lambda script: start(script, answer_in)


def judge(server, concurrency=4, retries=2, timeout=5.0, key="JUDGE_KEY"):
    return remote.make(server.url, "judge-model", key, concurrency, retries, timeout)


def items(*answers):
    return [Answered("Who?", "Ann", answer) for answer in answers]


def by_answer(answer, before):
    return completion("Yes." if answer.startswith("Ann") else "no")


def test_verdicts_in_order_with_the_key_and_no_empty_or_repeated_questions(serve):
    server = serve(by_answer)
    grade = judge(server)
    assert grade(items("Ann", "Bob", "", "Ann", "Ann B.", "  ")) == [True, False, False, True, True, False]
    assert grade.name == "remote:judge-model"
    assert server.asked == {"Ann": 1, "Bob": 1, "Ann B.": 1}
    path, authorization, body = server.requests[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert body["model"] == "judge-model" and "Who?" in body["messages"][0]["content"]


def test_asks_concurrently_and_no_more_than_allowed(serve):
    together = threading.Barrier(3, timeout=5)

    def script(answer, before):
        together.wait()  # breaks unless three are under way at once
        time.sleep(0.03)  # leaves time for a fourth to show
        return completion("yes")

    server = serve(script)
    assert judge(server, concurrency=3)(items(*(f"Ann {i}" for i in range(9)))) == [True] * 9
    assert server.most == 3


@pytest.mark.parametrize(
    "failure",
    [
        error(429),
        error(500),
        error(503),
        (200, "<html>maintenance</html>"),
        (200, "<html>maintenance</html>", {"content-type": "text/html"}),
        (200, "{}"),
        (200, '{"choices": []}'),
        (200, '{"choices": [{"message": {"content": null}}]}'),
        (200, "[1, 2]"),
        completion("I cannot say yes or no"),
        completion("yes, but no"),
        completion(""),
    ],
)
def test_a_failure_is_asked_again_and_then_missing_never_wrong(serve, caplog, failure):
    server = serve(lambda answer, before: failure if before < 2 else by_answer(answer, before))
    assert judge(server, retries=2)(items("Ann", "Bob")) == [True, False]
    assert not caplog.records

    server = serve(lambda answer, before: failure if answer == "Bob" else by_answer(answer, before))
    assert judge(server, retries=1)(items("Ann", "Bob", "Bob", "")) == [True, None, None, False]
    assert server.asked == {"Ann": 1, "Bob": 2}
    assert "2 of 4 answers not graded" in caplog.text


def test_timeouts(serve, caplog):
    def script(answer, before):
        if answer == "slow" or (answer == "Ann" and before == 0):
            time.sleep(1.0)
        return completion("yes")

    assert judge(serve(script), timeout=0.2, retries=1)(items("Ann", "slow", "Ann C.")) == [True, None, True]
    assert "timeout: 1" in caplog.text


def test_partial_outage(serve, caplog):
    server = serve(lambda answer, before: error(500) if int(answer[-1]) % 2 else by_answer(answer, before))
    verdicts = judge(server, retries=1)(items(*(f"Ann {i}" for i in range(10))))
    assert verdicts == [True, None] * 5
    assert "5 of 10 answers not graded (HTTP 500: 5)" in caplog.text


def test_nobody_there(serve, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    assert remote.make(url, "judge-model", "JUDGE_KEY", 2, 1, 1.0)(items("Ann", "Bob")) == [None, None]
    assert "no connection: 2" in caplog.text


def test_retry_after_is_respected(serve, monkeypatch):
    waits = []
    monkeypatch.setattr(endpoint.time, "sleep", waits.append)
    server = serve(lambda answer, before: (*error(429), {"retry-after": "7"}) if before == 0 else completion("yes"))
    assert judge(server)(items("Ann")) == [True]
    assert waits == [7.0]


def test_waits_grow(serve, monkeypatch):
    waits = []
    monkeypatch.setattr(endpoint.time, "sleep", waits.append)
    assert judge(serve(lambda answer, before: error(500)), retries=4)(items("Ann")) == [None]
    assert len(waits) == 4 and all(later > earlier for earlier, later in zip(waits, waits[1:], strict=False))


def test_a_request_that_the_endpoint_rejects_is_not_repeated(serve, caplog):
    server = serve(lambda answer, before: error(400))
    assert judge(server, retries=3)(items("Ann")) == [None]
    assert server.asked == {"Ann": 1}
    assert "HTTP 400: 1" in caplog.text


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_unknown_model_stops_the_run_and_shows_no_key(serve, caplog, status):
    caplog.set_level(logging.DEBUG)
    server = serve(lambda answer, before: error(status, f"Incorrect API key provided: {KEY}"))
    with pytest.raises(UserError) as caught:
        judge(server)(items("Ann", "Bob"))
    assert "judge-model" in str(caught.value) and "JUDGE_KEY" in str(caught.value) and str(status) in str(caught.value)
    assert KEY not in str(caught.value) and caught.value.__cause__ is None and caught.value.__suppress_context__
    assert not any(KEY in record.getMessage() for record in caplog.records if record.name.startswith("seal_jax"))


def test_no_log_shows_the_key(serve, caplog):
    caplog.set_level(logging.DEBUG)
    judge(serve(lambda answer, before: error(500) if before == 0 else by_answer(answer, before)))(items("Ann"))
    assert caplog.text and KEY not in caplog.text


def test_failures_show_no_key(serve, caplog):
    judge(serve(lambda answer, before: error(500, f"key {KEY}")), retries=0)(items("Ann"))
    assert "HTTP 500" in caplog.text and KEY not in caplog.text


def test_missing_or_broken_key(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    for value in (None, "  ", "sk-ключ", "sk-\x00abc"):
        if value and "\x00" not in value:
            monkeypatch.setenv("JUDGE_KEY", value)
        elif value:
            monkeypatch.setattr(endpoint.os, "environ", {"JUDGE_KEY": value})
        with pytest.raises(UserError, match="JUDGE_KEY") as caught:
            remote.make("http://127.0.0.1:9/v1", "judge-model", "JUDGE_KEY", 1, 0, 1.0)
        assert "sk-" not in str(caught.value)


def test_an_endpoint_without_key_gets_no_other_key(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(by_answer)
    assert judge(server, key="")(items("Ann")) == [True]
    assert KEY not in server.requests[0][1]


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"base_url": ""}, "base_url"), ({"base_url": "host/v1"}, "base_url"), ({"concurrency": 0}, "concurrency"),
     ({"retries": -1}, "retries"), ({"timeout": 0}, "timeout")],
)  # fmt: skip
def test_bad_settings_are_named(changed, named):
    settings = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": "", "concurrency": 1}
    with pytest.raises(UserError, match=named):
        remote.make(**(settings | {"retries": 0, "timeout": 1.0} | changed))


@pytest.mark.parametrize("content", ["yes", "Yes.", " NO\n", "**No**", '"yes"'])
def test_verdicts_that_are_read(serve, content):
    server = serve(lambda answer, before: completion(content))
    assert judge(server)(items("Ann")) == ["es" in content]
