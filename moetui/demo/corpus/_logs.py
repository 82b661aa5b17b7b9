"""Log files of a small web service: requests, jobs, logins, a database that comes and goes; time moves forward."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random

_PATHS = ("/users", "/orders", "/items", "/login", "/search", "/reports", "/health")
_TABLES = ("users", "orders", "items", "events")
_JOBS = ("backup", "cleanup", "report", "import", "resize")
_USERS = ("ada", "ben", "carla", "dev", "elif", "finn")
_HOSTS = ("db-1", "db-2", "cache-1", "queue-1")
_MOST_LINES = 9  # about 400 tokens, so that a file fits the model's context
_Line = tuple[str, str, str]  # level, service, message


def _status(rng: Random) -> tuple[str, int]:
    status = rng.choice((200, 200, 200, 201, 204, 301, 400, 404, 500))
    return ("ERROR" if status >= 500 else "WARN" if status >= 400 else "INFO"), status


def _request(rng: Random) -> Iterator[_Line]:
    request, path = rng.randint(100, 999), rng.choice(_PATHS)
    if path in ("/users", "/orders", "/items") and rng.random() < 0.6:
        path = f"{path}/{rng.randint(1, 99)}"
    method = rng.choice(("GET", "GET", "POST", "PUT"))
    yield "INFO", "api", f"request {request} started: {method} {path}"
    if rng.random() < 0.4:
        yield "DEBUG", "db", f"query on {rng.choice(_TABLES)} took {rng.randint(1, 90)} ms"
    level, status = _status(rng)
    yield level, "api", f"request {request} finished: status={status} time={rng.randint(2, 400)}ms"
    if status >= 500:
        yield "ERROR", "api", f"request {request} failed: {rng.choice(('timeout', 'no connection', 'out of memory'))}"


def _job(rng: Random) -> Iterator[_Line]:
    name, number, total = rng.choice(_JOBS), rng.randint(10, 99), rng.choice((50, 100, 200))
    yield "INFO", "worker", f"job {name}-{number} started"
    for part in sorted(rng.sample((25, 50, 75), rng.randint(1, 3))):
        yield "INFO", "worker", f"job {name}-{number}: {total * part // 100} of {total} done ({part}%)"
    if rng.random() < 0.8:
        yield "INFO", "worker", f"job {name}-{number} finished in {rng.randint(2, 90)} s"
    else:
        yield "ERROR", "worker", f"job {name}-{number} stopped: disk full"


def _login(rng: Random) -> Iterator[_Line]:
    user = rng.choice(_USERS)
    address = f"10.0.{rng.randint(0, 9)}.{rng.randint(1, 99)}"
    for _ in range(rng.choice((0, 0, 1, 2))):
        yield "WARN", "auth", f"wrong password for user={user} ip={address}"
    yield "INFO", "auth", f"user={user} logged in from ip={address}"
    if rng.random() < 0.5:
        yield "INFO", "auth", f"user={user} logged out"


def _outage(rng: Random) -> Iterator[_Line]:
    host, tries = rng.choice(_HOSTS), rng.randint(1, 4)
    yield "ERROR", "net", f"lost connection to {host}"
    for attempt in range(1, tries + 1):
        yield "WARN", "net", f"retry {attempt} of {tries}: {host} does not answer, waiting {2**attempt} s"
    yield "INFO", "net", f"connected to {host} again after {tries} tries"


def _cache(rng: Random) -> Iterator[_Line]:
    hits, misses = rng.randint(1, 99), rng.randint(0, 40)
    yield "DEBUG", "cache", f"hits={hits} misses={misses}"
    if misses > 20:
        yield "WARN", "cache", f"many misses, size raised to {rng.choice((64, 128, 256, 512))} MB"


_FLOWS: tuple[Callable[[Random], Iterator[_Line]], ...] = (_request, _request, _request, _job, _login, _outage, _cache)


def document(rng: Random) -> str:
    """Two to nine lines: several flows one after the other, each line with its time, level and service."""
    now = datetime(
        2024, rng.randint(1, 12), rng.randint(1, 28), rng.randint(0, 23), rng.randint(0, 59), rng.randint(0, 59)
    )
    lines = []
    if rng.random() < 0.25:
        lines.append(f"{now} INFO main: service started, version {rng.randint(1, 4)}.{rng.randint(0, 9)}")
    for _ in range(rng.randint(2, 3)):
        for level, service, message in rng.choice(_FLOWS)(rng):
            now += timedelta(seconds=rng.choice((0, 0, 1, 1, 2, 3)))
            lines.append(f"{now} {level} {service}: {message}")
    return "\n".join(lines[:_MOST_LINES])
