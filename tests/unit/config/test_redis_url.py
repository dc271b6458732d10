"""Addresses of Redis: redis-py accepts each valid address, and each invalid address is rejected first."""

import shutil
import subprocess

import pytest
from redis.asyncio.connection import SSLConnection

from src.config.redis_url import check_host, check_redis_url, redis_url
from src.storage.redis.link import RedisAddress, connect


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://cache", {"host": "cache"}),
        ("redis:///3", {"db": 3}),
        (
            "redis://user:p%40ss%2Fword@cache:6380/2",
            {"username": "user", "password": "p@ss/word", "port": 6380},
        ),
        ("redis://:secret@[::1]:6380/", {"host": "::1", "password": "secret"}),
        ("redis://cache?db=4&password=a%20b", {"db": 4, "password": "a b"}),
        ("redis://cache/4?db=4", {"db": 4}),
        ("rediss://cache?ssl_cert_reqs=none&ssl_check_hostname=false", {"ssl_cert_reqs": "none"}),
        ("unix:///run/redis%20x.sock?db=1", {"path": "/run/redis x.sock", "db": 1}),
        ("unix://user@/run/redis.sock?password=x", {"username": "user", "password": "x"}),
    ],
)
def test_every_accepted_url_can_be_used_by_the_client(url, options):
    check_redis_url(url)
    pool = connect(RedisAddress(url)).connection_pool
    assert options.items() <= pool.connection_kwargs.items()
    connection = pool.make_connection()
    if isinstance(connection, SSLConnection):
        connection.ssl_context.get()


def test_embedded_is_a_valid_address():
    check_redis_url("embedded://")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://cache", "must start with one of redis://, rediss://, unix://, embedded://"),
        ("cache:6379", "must start with one of"),
        ("redis:/cache", "must start with one of"),
        ("redis+sentinel://cache", "must start with one of"),
        ("embedded://data", "exactly embedded://"),
        ("embedded://?db=1", "exactly embedded://"),
        ("redis://cache:99999", "must be redis://"),
        ("redis://cache:port", "must be redis://"),
        ("redis://cache:0", "a port between 1 and 65535"),
        ("redis://::1", "must be redis://"),
        ("redis://[::1", "must be redis://"),
        ("redis://cache/x", "must be redis://"),
        ("redis://cache/0/1", "must be redis://"),
        ("redis://cache/-1", "must be redis://"),
        ("redis://:hunter2/x@cache", "must be redis://"),
        ("redis://:hunter2#x@cache", "must be redis://"),
        ("redis://one,two", "the name or the IP address of a host"),
        ("redis://ca che", "the name or the IP address of a host"),
        ("redis://a..b", "the name or the IP address of a host"),
        ("redis://cache/1?db=2", "one database"),
        ("redis://cache/99999999999", "a database between 0 and 2147483647"),
        ("redis://cache?db=abc", "one valid value for the option db"),
        ("redis://cache?db=", "one valid value for the option db"),
        ("redis://cache?db=1&db=1", "one valid value for the option db"),
        ("redis://cache?foo=bar", "no other options than db, username, password"),
        ("redis://cache?protocol=3", "no other options"),
        ("redis://cache/0?ssl_cert_reqs=none", "must be rediss:// to take the option ssl_cert_reqs"),
        ("rediss://cache?ssl_cert_reqs=perhaps", "one valid value for the option ssl_cert_reqs"),
        ("rediss://cache?ssl_check_hostname=maybe", "one valid value for the option ssl_check_hostname"),
        (
            "rediss://cache?ssl_ca_certs=/nowhere.pem",
            "certificates in ssl_ca_certs: No such file or directory",
        ),
        ("rediss://cache?ssl_certfile=/nowhere.pem", "a certificate and its key in ssl_certfile"),
        ("rediss://cache?ssl_keyfile=/nowhere.pem", "ssl_certfile to take ssl_keyfile"),
        ("unix://run/redis.sock", "the absolute path of a socket"),
        ("unix://", "the absolute path of a socket"),
        ("unix:///run/", "the absolute path of a socket"),
        (f"unix:///{'x' * 107}", "at most 107 bytes"),
        ("unix:///run/redis.sock?ssl_cert_reqs=none", "must be rediss://"),
        ("redis://:\udcff@cache", "UTF-8"),
    ],
)
def test_an_unusable_url_is_rejected_without_repeating_it(url, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_redis_url(url)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost:6380",
        "[::1]:6380",
        "redis://cache",
        "user@cache",
        "cache/0",
        "ca che",
        "a..b",
        "x" * 64,
        "1::2::3",
    ],
)
def test_a_host_with_other_parts_is_rejected(host):
    with pytest.raises(ValueError, match="host"):
        check_host(host)


@pytest.mark.parametrize(
    "host", ["localhost", "redis-1.svc", "a_b", "10.0.0.1", "::1", "fe80::1%eth0", "bücher.example"]
)
def test_a_redis_url_contains_host_port_database_and_password(host):
    check_host(host)
    check_redis_url(url := redis_url(host, 6380, 2, "p@ss:#/?%"))
    options = connect(RedisAddress(url)).connection_pool.connection_kwargs
    assert (options["host"], options["port"], options["db"]) == (host, 6380, 2)
    assert options["password"] == "p@ss:#/?%"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_an_encrypted_key_does_not_cause_a_prompt_for_its_password(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "1", "-subj", "/CN=localhost",
         "-passout", "pass:secret", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    url = f"rediss://cache?ssl_certfile={certificate}&ssl_keyfile={key}"
    with pytest.raises(ValueError, match="ssl_certfile, ssl_keyfile"):
        check_redis_url(url)
    check_redis_url(f"{url}&ssl_password=secret")
