"""A real engine for these tests: the one that runs here or a private one; in CI its absence is a failure."""

from collections.abc import Iterator

import docker
import pytest

from gpt_oss.tools.python_docker.containers import close_pools
from gpt_oss.tools.python_docker.docker_tool import PythonTool
from tests.helpers.docker_engine import TestEngine, engine_for_session
from tests.helpers.python_tool import containers, wait_until


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    """Run the session with DOCKER_HOST naming an engine that has an image with Python."""
    with engine_for_session() as found:
        yield found
        close_pools()


@pytest.fixture(scope="session")
def client(engine: TestEngine) -> Iterator[docker.DockerClient]:
    """Yield a client of the engine that the tests use to look on."""
    connected = docker.DockerClient(base_url=engine.url)
    yield connected
    connected.close()


@pytest.fixture
def make_tool(engine: TestEngine):
    """Make tools that keep nothing waiting, so that after a call nothing may be left."""

    def make(**options) -> PythonTool:
        return PythonTool(**{"image": engine.image, "pool_size": 0, "timeout": 20, **options})

    return make


@pytest.fixture
def nothing_left(client: docker.DockerClient) -> Iterator[None]:
    """Assert after the test that no container of the tool exists in any state."""
    close_pools()
    assert wait_until(lambda: not containers(client))
    yield
    close_pools()
    assert wait_until(lambda: not containers(client)), "containers are left"


@pytest.fixture(scope="session")
def harmony():
    """Return the encoding, from the package's own vocabulary."""
    from gpt_oss.tokenizer import get_harmony_encoding

    return get_harmony_encoding()
