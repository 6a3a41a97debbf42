"""Training by two processes: the same losses as one, fewer bytes by hooks, no hang without one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from test_reconstruct import residual_net
from test_train import classes

from edgekit.errors import LinkError, UsageError
from edgekit.train import fit, workers

torch = pytest.importorskip("torch")

WORKER = """
import json, sys
sys.path.insert(0, {tests!r})
import test_workers
for options in json.loads(sys.argv[1]):
    print(json.dumps(test_workers.trained(**options)), flush=True)
"""
ALIKE: dict[str, dict[str, Any]] = {
    "none": {},
    "fp16": {"gradients": "fp16"},
    "int8": {"gradients": "int8"},
    "topk": {"gradients": "topk", "top": 0.1, "steps": 120},
    "few": {"gradients": "topk", "top": 0.02, "steps": 120},
    "forgotten": {"gradients": "topk", "top": 0.02, "steps": 120, "feedback": False},
}


def trained(feedback: bool = True, **options: Any) -> dict[str, Any]:
    """One training in this process, alone or as a worker; prints every step to stderr."""
    torch.set_num_threads(1)
    d = classes(256)
    settings: dict[str, Any] = {"steps": 40, "batch": 32, "rate": 0.02, "optimizer": "sgd"}
    o = fit.Options(**{**settings, **options})
    if not feedback:
        workers.Exchange.keep = lambda *_: None  # type: ignore[method-assign, assignment]

    def progress(what: str, i: int, n: int) -> None:
        print(i, file=sys.stderr, flush=True)

    r = fit.fit(residual_net(), {"x": d["x"]}, d["y"], o, progress=progress)
    sums = [float(a.sum()) for a in r.constants.values()]
    found: dict[str, Any] = {"losses": r.losses, "sums": sums}
    if r.sent:
        found |= {"ratio": r.sent.ratio, "sent": r.sent.sent_bytes, "says": str(r.sent)}
    return found


def start(*trainings: dict[str, Any]) -> list[subprocess.Popen[str]]:
    """Two workers as torchrun would start them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    script = WORKER.format(tests=str(Path(__file__).parent))
    env = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(trainings)], text=True,
            env=env | {"RANK": str(i)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return trained()


@pytest.fixture(scope="module")
def together() -> dict[str, dict[str, Any]]:
    """What two workers found in each training; they agree."""
    found = []
    for p in start(*ALIKE.values()):
        out, err = p.communicate(timeout=240)
        assert p.returncode == 0, err[-2000:]
        found.append([json.loads(line) for line in out.splitlines()])
    assert found[0] == found[1]
    return dict(zip(ALIKE, found[0], strict=True))


def test_two_workers_train_as_one_does(alone: Any, together: Any) -> None:
    both = together["none"]
    assert both["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert both["sums"] == pytest.approx(alone["sums"], abs=1e-3)
    assert both["ratio"] == 1 and both["sent"] > 0 and "a step" in both["says"]


@pytest.mark.parametrize(("kind", "low", "high"), [("fp16", 0.5, 0.5), ("int8", 0.25, 0.27)])
def test_short_gradients_learn_the_same(
    kind: str, low: float, high: float, alone: Any, together: Any
) -> None:
    """int8: a scale for 512 gradients and the padding of the last ones come on top."""
    got = together[kind]
    assert low <= got["ratio"] <= high
    assert got["losses"] == pytest.approx(alone["losses"], rel=0.02)


@pytest.mark.parametrize(("name", "less"), [("topk", 0.2), ("few", 0.5)])
def test_the_largest_gradients_are_enough(name: str, less: float, together: Any) -> None:
    """Place and value: twice the share."""
    got = together[name]
    assert got["ratio"] == pytest.approx(2 * ALIKE[name]["top"], rel=0.05)
    assert got["losses"][1] < less * got["losses"][0]


def test_error_feedback_matters(together: Any) -> None:
    """With one gradient in fifty sent, what is kept back decides how far training comes."""
    assert together["few"]["losses"][1] < 0.5 * together["forgotten"]["losses"][1]


def test_torchrun_runs_a_recipe_once(tmp_path: Path) -> None:
    """The command under torchrun: both train, one writes and speaks."""
    tiny.write(tmp_path)
    (tmp_path / "r.toml").write_text(
        '[[step]]\ndo = "finetune"\nsteps = 6\nbatch = 8\ngradients = "int8"\n'
    )
    run = "-m torch.distributed.run --nproc-per-node 2 --master-port 0 --rdzv-backend c10d "
    run += "--rdzv-endpoint 127.0.0.1:0 -m edgekit compress model.onnx --data test.npz "
    run += "--recipe r.toml -o out --test 20 --json"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    got = subprocess.run(
        [sys.executable, *run.split()], cwd=tmp_path, env=env, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert got.returncode == 0, got.stderr[-2000:]
    assert len(json.loads(got.stdout)["steps"]) == 1
    (line,) = (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()
    effect = json.loads(line)["effect"]
    assert "each worker sent" in effect and ", 0.2" in effect
    assert (tmp_path / "out" / "model.ekp").is_file()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_is_an_error(how: int) -> None:
    """Dead: at once.  Standing still: after `wait_s`."""
    stays, goes = start({"steps": 100000, "wait_s": 5.0})
    for p in (stays, goes):
        assert p.stderr is not None
        while "20" not in p.stderr.readline():
            assert p.poll() is None
    begin = time.monotonic()
    goes.send_signal(how)
    _, err = stays.communicate(timeout=60)
    goes.kill()
    goes.communicate()
    assert stays.returncode == 1 and time.monotonic() - begin < 30
    assert "LinkError" in err and "worker 0 lost another worker" in err


def test_workers_that_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "9")
    with pytest.raises(LinkError, match="did not meet"):
        workers.join(1.0)


def test_refusals() -> None:
    with pytest.raises(UsageError, match="gradients 'zip'"):
        workers.parallel(lambda p: p, [], workers.Exchange("zip"))
    with pytest.raises(UsageError, match="no share"):
        workers.parallel(lambda p: p, [], workers.Exchange("topk", 0.0))
    for p in start({"batch": 31}):
        assert "cannot share a batch of 31" in p.communicate(timeout=60)[1]


def test_int8_rounds_to_a_127th(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook on one bucket: what is not sent is kept, and comes with the next gradient."""
    monkeypatch.setattr(workers, "_gathered", lambda t: [t])
    p = torch.nn.Parameter(torch.zeros(700))

    class Bucket:
        def buffer(self) -> Any:
            return torch.linspace(-1, 1, 700)

        def parameters(self) -> list[Any]:
            return [p]

    e = workers.Exchange("int8")
    first, second = (workers.int8(e, Bucket()).value().numpy() for _ in range(2))
    want = np.linspace(-1, 1, 700)
    assert np.abs(first - want).max() < 0.5 / 127 + 1e-6
    assert np.abs(first + second - 2 * want).mean() < 0.8 * 2 * np.abs(first - want).mean()
