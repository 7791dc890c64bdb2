"""One model behind a pool of threads, a hot reload, and workers in processes."""

import multiprocessing
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn

import paramdesc as P
from paramdesc.parametrizations import orthogonal, spectral_norm

REQUESTS = [torch.randn(4, 32, generator=torch.Generator().manual_seed(i)) for i in range(200)]


def make_model(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    orthogonal(model[0])
    spectral_norm(model[2])
    return model.eval()


class Server:
    """Answers every request with one version of the weights."""

    def __init__(self, model, example):
        self.use(model, example)

    def use(self, model, example):
        """Answer with `model` from now on. The first answer evaluates the maps."""
        version = model.eval(), P.cached(model, persistent=True)
        self.answer_with(version, example)
        self.current = version

    def answer(self, x):
        return self.answer_with(self.current, x)

    @staticmethod
    def answer_with(version, x):
        model, kept = version
        with torch.inference_mode(), kept:
            return model(x)


def serve_threads():
    """Eight threads answer requests while the weights are replaced."""
    versions = [make_model(seed) for seed in (0, 1)]
    with torch.inference_mode():
        expected = [[model(x) for x in REQUESTS] for model in versions]
    server = Server(versions[0], REQUESTS[0])
    started = threading.Event()

    def answer(i):
        started.set()
        return server.answer(REQUESTS[i])

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(answer, i) for i in range(len(REQUESTS))]
        started.wait()
        server.use(versions[1], REQUESTS[0])
        results = [each.result() for each in answers]
    for i, result in enumerate(results):
        assert any(torch.allclose(result, old[i], atol=1e-5) for old in expected), i
    assert torch.allclose(server.answer(REQUESTS[0]), expected[1][0], atol=1e-5)
    with server.current[1] as scope:
        print("evaluations of the new version:", scope.misses, "reads:", scope.hits + scope.misses)
        assert scope.misses == 2

    # in place: noticed by the next request, in every thread
    model, _ = server.current
    model.load_state_dict(versions[0].state_dict())
    with ThreadPoolExecutor(8) as pool:
        for result, right in zip(pool.map(server.answer, REQUESTS), expected[0], strict=True):
            assert torch.allclose(result, right, atol=1e-5)


SERVER = None  # of a worker


def start_worker(file):
    """In a new process: build the model and load the weights, unless it was inherited by a fork."""
    global SERVER
    torch.set_num_threads(1)
    if file is not None:
        model = make_model(seed=9)
        model.load_state_dict(torch.load(file))
        SERVER = Server(model, REQUESTS[0])


def answer_in_worker(i):
    result = SERVER.answer(REQUESTS[i]).tolist()
    with SERVER.current[1] as scope:
        return result, scope.misses


def serve_processes():
    """Workers that are forked, and workers that start anew."""
    global SERVER
    model = make_model(0)
    with torch.inference_mode():
        expected = [model(x) for x in REQUESTS[:20]]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.pt")
        torch.save(model.state_dict(), file)
        for method in ("fork", "spawn"):
            SERVER = Server(model, REQUESTS[0]) if method == "fork" else None
            context = multiprocessing.get_context(method)
            given = None if method == "fork" else str(file)
            with context.Pool(2, start_worker, (given,)) as pool:
                for (result, misses), right in zip(
                    pool.map(answer_in_worker, range(20)), expected, strict=True
                ):
                    assert torch.allclose(torch.tensor(result), right, atol=1e-5)
                    assert misses == 2  # one for each parametrized tensor, and none after a fork
            print(method, "ok")


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve_processes()  # before this process has threads, which a fork would not copy
    serve_threads()
