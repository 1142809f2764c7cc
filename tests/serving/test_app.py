"""Asking over HTTP: answers are predict's, and whatever is sent gets an answer."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hydra import compose, initialize_config_dir
from starlette.testclient import TestClient

from foundation.config import conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.serving.app import make_app
from foundation.serving.config import PredictConfig, ServeConfig
from foundation.serving.limits import BodyLimit
from foundation.serving.panel import Panel, load_panel
from foundation.serving.predict import predict
from foundation.serving.server import serve
from foundation.train.config import TrainerConfig
from tests.serving.toy_tasks import FILMS, STARS, model, renamed, save, three_on_one_encoder
from tests.task import toy

CPU = TrainerConfig(device="cpu", threads=1)
CFG = ServeConfig(runs="-", trainer=CPU, rows=8, text_chars=400, body_bytes=20_000, waiting_rows=64)
TEXTS = [text for text, _ in toy.sentences(8, purpose=5)]
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = make_app(Panel(three_on_one_encoder(), CFG.batch_tokens), CFG)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, **question: Any) -> httpx.Response:
    return client.post("/answer", json=question)


def close(one: Any, other: Any) -> bool:
    """Equal but for rounding: rows of several requests are computed together."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    return one == pytest.approx(other, abs=1e-5)


def test_answers_are_those_of_predict(tmp_path: Path) -> None:
    runs = [save(model(task, head_seed=seed), tmp_path / task.name) for seed, task in enumerate((FILMS, STARS))]
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    cfg = PredictConfig(run=runs, input=str(tmp_path / "in.txt"), output=str(tmp_path / "out.jsonl"), trainer=CPU)
    predict(cfg)
    expected = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    with TestClient(make_app(load_panel(runs, CPU, 4096), CFG), base_url="http://127.0.0.1") as client:
        answers = ask(client, rows=[{"text": text} for text in TEXTS]).json()["answers"]
    assert len(answers) == len(expected) == len(TEXTS)
    assert all(close({"text": text, **one}, other) for text, one, other in zip(TEXTS, answers, expected, strict=True))


def test_concurrent_requests_get_each_its_own_answers(client: TestClient) -> None:
    rows = [{"text": text, "text_pair": other} for text in TEXTS for other in TEXTS[:4]]
    alone = [ask(client, rows=[row]).json()["answers"][0] for row in rows]
    before = client.get("/health").json()
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda row: ask(client, rows=[row]), rows))
    assert all(close(reply.json()["answers"][0], one) for reply, one in zip(together, alone, strict=True))
    after = client.get("/health").json()
    assert after["answered"] - before["answered"] == len(rows)
    assert after["batches"] - before["batches"] < len(rows)


def test_without_names_every_task_answers_that_the_rows_suffice_for(client: TestClient) -> None:
    assert ask(client, rows=[{"text": "a"}]).json()["answers"][0].keys() == {"films", "stars"}
    assert ask(client, rows=[{"text": "a", "text_pair": "b"}]).json()["answers"][0].keys() == {
        "films",
        "stars",
        "pairs",
    }
    assert ask(client, rows=[{"text": "a"}], tasks=["stars"]).json()["answers"][0].keys() == {"stars"}


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"rows": []}, "rows: list should have at least 1 item"),
        ({}, "rows: field required"),
        ({"rows": "a"}, "rows: input should be a valid list"),
        ({"rows": [{"text": "a"}], "task": "films"}, "task: extra inputs are not permitted"),
        ({"rows": [{"text": 3}]}, "rows.0.text"),
        ({"rows": [{"text": ["a"]}], "tasks": ["films"]}, r"rows[0].text must be one text, not a list, for task films"),
        ({"rows": [{"text": "a"}], "tasks": []}, "tasks: list should have at least 1 item"),
        ({"rows": [{"text": "a"}], "tasks": ["x"]}, "there is no task 'x' here: choose among films, stars, pairs"),
        ({"rows": [{"text": "a"}], "tasks": ["pairs"]}, "rows[0] has no text_pair, and task pairs asks for it"),
        ({"rows": [{"text": "a"}, {"b": "a"}], "tasks": ["films"]}, "rows[1] has no text, and task films asks for it"),
        ({"rows": [{"review": "a"}]}, "no task here takes rows of review: /tasks says what each takes"),
        ({"rows": [{}]}, "no task here takes rows of nothing"),
        ({"rows": [{"text": "a"}] * 9}, "there are 9 rows, and at most 8 go into a request: send several"),
        ({"rows": [{"text": "a" * 401}]}, "rows[0].text has 401 characters, and at most 400 are read"),
        (
            {"rows": [{"text": "a\ud800"}]},
            "rows[0].text holds half of a surrogate pair at character 1: that is no text",
        ),
        (
            {"rows": [{"\ud800": "a"}]},
            "a name in rows[0] holds half of a surrogate pair at character 0: that is no text",
        ),
    ],
)
def test_a_question_that_cannot_be_asked_is_answered_422_with_the_reason(
    client: TestClient, question: dict[str, Any], words: str
) -> None:
    reply = client.post("/answer", content=json.dumps(question), headers=JSON)
    assert reply.status_code == 422
    assert reply.json().keys() == {"error"}
    assert words in reply.json()["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"rows": [', b"\x00\x01\xfe\xff", b"\xff\xfe{\x00}\x00\xd8", b"[" * 10_000, b"\x1f\x8b\x08binary"],
)
def test_a_body_that_is_not_json_is_refused_with_400_or_422(client: TestClient, body: bytes) -> None:
    reply = client.post("/answer", content=body, headers=JSON)
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]
    assert "\n" not in reply.json()["error"]
    assert ask(client, rows=[{"text": "a"}]).status_code == 200


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_body_that_is_too_large_is_refused_with_413(client: TestClient, is_counted: bool) -> None:
    body = json.dumps({"rows": [{"text": "a" * 30_000}]}).encode()
    parts = body if is_counted else iter([body[:100], body[100:]])
    reply = client.post("/answer", content=parts, headers=JSON)
    assert reply.status_code == 413
    assert reply.json()["error"].startswith("the request is larger than 20,000 bytes")


def test_a_body_that_takes_too_long_is_refused_with_408() -> None:
    sent: list[Any] = []

    async def app(*_: Any) -> None:
        raise AssertionError("a request that is not here whole is passed on to nobody")

    async def receive() -> Any:
        await asyncio.sleep(0.5)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(BodyLimit(app, 100, seconds=0.05)({"type": "http"}, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"]) == {"error": "the request was not here within 0.05 seconds"}


def test_what_is_not_there_is_said_as_json(client: TestClient) -> None:
    for reply, status in ((client.get("/nowhere"), 404), (client.get("/answer"), 405)):
        assert reply.status_code == status
        assert reply.json().keys() == {"error"}


def test_another_sites_name_for_this_machine_is_refused(client: TestClient) -> None:
    assert client.get("/tasks", headers={"host": "evil.example"}).status_code == 400


def test_when_too_much_waits_the_answer_is_503(client: TestClient) -> None:
    panel = Panel({"films": model(FILMS)}, 4096)
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        assert go_on.wait(10)

    panel.models["films"].objective.encoder.register_forward_pre_hook(slow)
    rows = [{"text": "a"}] * 8
    with (
        TestClient(make_app(panel, replace(CFG, waiting_rows=8)), base_url="http://127.0.0.1") as busy,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(ask, busy, rows=rows)
        assert begun.wait(10)
        second = pool.submit(ask, busy, rows=rows)
        while busy.get("/health").json()["waiting_rows"] < 8:
            pass
        third = ask(busy, rows=rows)
        go_on.set()
        assert (third.status_code, first.result().status_code, second.result().status_code) == (503, 200, 200)
    assert third.json()["error"] == "too many rows wait already: try again in a moment"


def test_a_failure_of_ours_is_500_and_the_next_question_is_answered() -> None:
    panel = Panel({"films": model(FILMS), "stars": model(renamed(STARS, "stars"), encoder_seed=1)}, 4096)

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    panel.models["stars"].objective.encoder.register_forward_pre_hook(broken)
    app = make_app(panel, CFG)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        reply = ask(client, rows=[{"text": "a"}], tasks=["stars"])
        assert (reply.status_code, reply.json()) == (500, {"error": "this is our fault, not yours: RuntimeError"})
        assert ask(client, rows=[{"text": "a"}], tasks=["films"]).status_code == 200
        assert client.get("/health").json()["status"] == "ok"


def test_tasks_are_described_as_they_are(client: TestClient) -> None:
    content = client.get("/tasks").json()
    assert [task["name"] for task in content["tasks"]] == ["films", "stars", "pairs"]
    assert content["tasks"][2]["inputs"] == ["text", "text_pair"]
    assert content["tasks"][0]["labels"] == ["bad", "good"]
    assert {task["encoder"] for task in content["tasks"]} == {0}
    assert content["parameters"] < content["parameters_alone"] / 2


def test_pages_fetch_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    addresses = [word for word in page.text.replace("'", '"').split('"') if word.startswith(("http:", "https:", "//"))]
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    docs = client.get("/docs").text
    assert "https://" not in docs
    assert client.get("/openapi.json").json()["paths"].keys() == {"/answer", "/tasks", "/health"}


def test_over_a_real_socket_binary_noise_is_refused_and_the_server_stays() -> None:
    app = make_app(Panel({"films": model(FILMS)}, 4096), CFG)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)))
                assert connection.recv(1000).startswith(b"HTTP/1.1 400")
            reply = httpx.post(f"http://127.0.0.1:{port}/answer", content=b"a" * 5_000_000, headers=JSON, timeout=10)
            assert reply.status_code == 413
            reply = httpx.post(f"http://127.0.0.1:{port}/answer", json={"rows": [{"text": "a"}]}, timeout=10)
            assert reply.json()["answers"][0].keys() == {"films"}
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


def test_a_port_that_is_taken_is_said_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"cannot listen on host=127.0.0.1 port={port} \(.*\): choose another port"
        ):
            serve(ServeConfig(runs="nowhere", port=port, trainer=CPU))


def test_the_shipped_settings_compose() -> None:
    register(ServeConfig, "serve")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose("serve", ["runs=[a,b]"]), ServeConfig)
    cfg.check()
    assert (cfg.host, cfg.runs) == ("127.0.0.1", ["a", "b"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"runs": 3}, r"run=3 must be a folder, or several of them in brackets"),
        ({"rows": 0, "port": 70_000}, r"rows=0 must be at least 1; port=70000 must be between 0"),
        ({"wait_ms": -1.0}, r"wait_ms=-1.0 must be between 0 and 1000"),
        ({"waiting_rows": 3}, r"waiting_rows=3 must be at least rows=64: one request must fit"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ServeConfig(**{"runs": "a", "trainer": CPU} | changed).check()
