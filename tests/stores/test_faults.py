"""
The store for tests, and each fault: it does what it says, and the log tells it.
"""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

from tests.stores.faults import REFUSALS, Fault, FaultProxy
from tests.stores.s3 import ACCESS_KEY, CLAIM, REGION, SECRET_KEY, Bucket, S3Store

ODD_KEY = "dt=2026-11-18/ü 100%+#?.parquet"
BODY = b"0123456789" * 100


@pytest.fixture
def http(faults: FaultProxy) -> httpx.Client:
    """
    A client that reaches the store through the proxy, and never tries twice.
    """
    return httpx.Client(
        base_url=faults.url, headers={"Authorization": CLAIM}, trust_env=False, timeout=10
    )


def put(http: httpx.Client, bucket: Bucket, key: str = "part") -> httpx.Response:
    """
    Put an object through the proxy.
    """
    return http.put(f"/{bucket.name}/{key}", content=BODY)


def filesystem(url: str) -> S3FileSystem:
    """
    Pyarrow's client, which sends whole small objects as soon as they are closed, once.
    """
    return S3FileSystem(
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        region=REGION,
        endpoint_override=url,
        allow_delayed_open=True,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),
    )


def test_the_view_reads_what_pyarrow_wrote(bucket: Bucket, faults: FaultProxy) -> None:
    """
    Keys come back as they were given, whatever stands in them.
    """
    with filesystem(faults.url).open_output_stream(f"{bucket.name}/{ODD_KEY}") as stream:
        stream.write(BODY)
    assert {ODD_KEY: len(BODY)} == bucket.keys()
    assert BODY == bucket.read(ODD_KEY)
    assert [("PUT", f"/{bucket.name}/{ODD_KEY}", 200)] == [
        (seen.method, seen.path, seen.status) for seen in faults.log
    ]


def test_pyarrow_reads_what_the_view_wrote(bucket: Bucket, faults: FaultProxy) -> None:
    """
    And the other way round; what is taken away is gone.
    """
    bucket.write(ODD_KEY, BODY)
    with filesystem(faults.url).open_input_file(f"{bucket.name}/{ODD_KEY}") as file:
        assert BODY[500:600] == file.read_at(100, 500)
    assert ["HEAD", "GET"] == [seen.method for seen in faults.log]
    bucket.delete(ODD_KEY)
    with pytest.raises(KeyError, match="dt=2026"):
        bucket.read(ODD_KEY)


def test_more_keys_are_listed_than_fit_on_a_page(bucket: Bucket) -> None:
    """
    A listing goes on where its page ended.
    """
    wanted = {f"many/{number}": 1 for number in range(5)}
    for key in wanted:
        bucket.write(key, b"x")
    assert wanted == bucket.keys("many/", page=2)
    assert {} == bucket.keys("few/")


def test_uploads_that_were_never_finished_are_seen(s3: S3Store, bucket: Bucket) -> None:
    """
    They are no objects, but somebody pays for them.
    """
    s3.http.post(f"/{bucket.name}/part?uploads").raise_for_status()
    assert ["part"] == bucket.uploads()
    assert {} == bucket.keys()


def test_the_store_leaves_with_whoever_started_it() -> None:
    """
    The end of its standard input is the end of it.
    """
    command = [sys.executable, "-m", "tests.stores.s3_server"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert ended.stdout.strip().isdigit()


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_IN_REQUEST])
def test_a_request_that_is_cut_is_not_applied(
    fault: Fault, http: httpx.Client, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    No object, no answer, and the log knows neither.
    """
    faults.arm(fault, "PUT")
    with http, pytest.raises(httpx.TransportError):
        put(http, bucket)
    assert {} == bucket.keys()
    assert [(None, None, fault)] == [(s.applied, s.status, s.fault) for s in faults.log]


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_IN_REQUEST])
def test_neither_is_one_that_is_sent_in_chunks(
    fault: Fault, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    Pyarrow tells no length: it sends chunks and a checksum behind them.
    """
    faults.arm(fault, "PUT")
    stream = filesystem(faults.url).open_output_stream(f"{bucket.name}/part")
    stream.write(BODY)
    with pytest.raises(OSError, match="NETWORK_CONNECTION during PutObject"):
        stream.close()
    assert {} == bucket.keys()


def test_an_answer_is_lost_after_the_store_applied_it(
    http: httpx.Client, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    The object is there, and the client cannot know it.
    """
    faults.arm(Fault.CUT_AFTER, "PUT")
    with http, pytest.raises(httpx.RemoteProtocolError):
        put(http, bucket)
    assert BODY == bucket.read("part")
    assert [(200, None)] == [(seen.applied, seen.status) for seen in faults.log]


def test_an_answer_ends_in_the_middle_of_its_body(
    http: httpx.Client, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    The client is told a length, and gets less.
    """
    bucket.write("part", BODY)
    faults.arm(Fault.CUT_IN_REPLY, "GET")
    with http, http.stream("GET", f"/{bucket.name}/part") as reply:
        chunks = reply.iter_raw()
        came = next(chunks)
        with pytest.raises(httpx.RemoteProtocolError):
            came += b"".join(chunks)
    assert BODY[: len(came)] == came
    assert 0 < len(came) < len(BODY)


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_looks_like_s3s_own(
    fault: Fault, http: httpx.Client, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    Nothing reaches the store, and the same connection goes on.
    """
    faults.arm(fault, "PUT")
    status, code, _ = REFUSALS[fault]
    with http:
        reply = put(http, bucket)
        assert (status, None, {}) == (reply.status_code, faults.log[0].applied, bucket.keys())
        assert f"<Code>{code}</Code>" in reply.text
        assert 200 == put(http, bucket).status_code


def test_a_silent_request_is_applied_although_the_client_left(
    http: httpx.Client, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    As a request does that was held up on its way.
    """
    faults.arm(Fault.SILENT, "PUT", seconds=30)
    with http, pytest.raises(httpx.ReadTimeout):
        http.put(f"/{bucket.name}/part", content=BODY, timeout=0.05)
    assert {} == bucket.keys()
    faults.end_silence()
    while not bucket.keys():  # the time limit of all tests ends it
        continue
    assert BODY == bucket.read("part")


def test_faults_fall_on_the_requests_they_were_armed_for(
    http: httpx.Client, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    By method, by the path as it is meant, and by number.
    """
    faults.arm(Fault.SLOW_DOWN, "PUT", r"/b=\d$", nth=2, times=2)
    with http:
        asked = ["a=1", "b=1", "b%3D2", "x", "b=3", "b=4"]
        assert [200, 200, 503, 200, 503, 200] == [put(http, bucket, k).status_code for k in asked]
    assert 0 == faults.waiting
    assert ["b=2", "b=3"] == [
        seen.path.rpartition("/")[2] for seen in faults.seen("PUT") if seen.fault
    ]
    faults.reset()
    assert [] == faults.log
