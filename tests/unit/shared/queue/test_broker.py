"""What broker URLs mean, and which are refused with the reason."""

from __future__ import annotations

import ssl
from dataclasses import replace

import pytest

from shared.queue.broker import Broker, BrokerUrlError, parse_broker, with_login


def test_a_plain_redis_url() -> None:
    broker = parse_broker("redis://node:p%40ss@redis.example:6380/3")
    assert broker == Broker((("redis.example", 6380),), 3, username="node", password="p@ss")
    assert broker.celery_url == "redis://node:p%40ss@redis.example:6380/3"


def test_port_and_database_have_defaults() -> None:
    assert parse_broker("redis://localhost") == Broker((("localhost", 6379),), 0)


def test_a_password_with_a_plus_and_a_percent_survives() -> None:
    assert parse_broker("redis://:a+b%25c@h/0").password == "a+b%c"


def test_a_password_with_an_at_sign_and_a_comma_that_nobody_quoted() -> None:
    broker = parse_broker("redis://:p@s,s@h:1/0")
    assert (broker.password, broker.hosts) == ("p@s,s", (("h", 1),))


def test_an_ipv6_host() -> None:
    broker = parse_broker("redis://[::1]:7000/1")
    assert broker.hosts == (("::1", 7000),)
    assert broker.celery_url == "redis://[::1]:7000/1"


def test_tls_checks_certificates_unless_told_otherwise() -> None:
    strict = parse_broker("rediss://h/0?ssl_ca_certs=/etc/ca.pem").tls
    assert strict == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, "ssl_ca_certs": "/etc/ca.pem"}
    assert parse_broker("rediss://h/0?ssl_cert_reqs=none").tls == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }


@pytest.mark.parametrize("between", [",", ";sentinel://"])
def test_sentinels_carry_the_login_and_the_database_to_each(between: str) -> None:
    broker = parse_broker(f"sentinel://:secret@one:26379{between}two/2?master=main&sentinel_password=other")
    assert broker.celery_url == "sentinel://:secret@one:26379/2;sentinel://:secret@two:26379/2"
    assert broker.transport_options == {"master_name": "main", "sentinel_kwargs": {"password": "other"}}


def test_a_sentinel_url_without_a_master_is_refused() -> None:
    with pytest.raises(BrokerUrlError, match="master=NAME"):
        parse_broker("sentinel://one:26379/0")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+cluster://h:1/0", "Redis Cluster"),
        ("amqp://h//", "RabbitMQ"),
        ("http://h", "must begin with"),
        ("h:6379", "must begin with"),
        ("redis://h/x", "number of a database"),
        ("redis://h:port/0", "HOST:PORT"),
        ("redis:///0", "HOST:PORT"),
        ("rediss://h/0?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
    ],
)
def test_other_urls_are_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(BrokerUrlError, match=why):
        parse_broker(url)


def test_nothing_that_is_shown_holds_a_password() -> None:
    broker = parse_broker("sentinel://:hidden@one/0?master=m&sentinel_password=hidden")
    assert "hidden" not in repr(broker) + broker.shown


@pytest.mark.parametrize(
    ("url", "changed"),
    [
        ("redis://h", "redis://me:a%2Fb%40c@h/"),
        ("redis://:old@h:1/2", "redis://me:a%2Fb%40c@h:1/2"),
        ("rediss://u:p%40@h/0?ssl_ca_certs=/ca.pem", "rediss://me:a%2Fb%40c@h/0?ssl_ca_certs=/ca.pem"),
        ("sentinel://:p@one:1,two:2/3?master=m", "sentinel://me:a%2Fb%40c@one:1,two:2/3?master=m"),
        ("sentinel://:p@one:1;sentinel://:p@two:2/3?master=m", "sentinel://me:a%2Fb%40c@one:1,two:2/3?master=m"),
    ],
)
def test_a_url_with_another_login_is_the_same_broker(url: str, changed: str) -> None:
    assert with_login(url, username="me", password="a/b@c") == changed
    before, after = parse_broker(url), parse_broker(changed)
    assert (after.username, after.password) == ("me", "a/b@c")
    assert replace(after, username=None, password=None) == replace(before, username=None, password=None)


def test_sentinels_may_want_a_user_of_their_own() -> None:
    broker = parse_broker("sentinel://one/0?master=m&sentinel_username=asker&sentinel_password=why")
    assert broker.transport_options["sentinel_kwargs"] == {"username": "asker", "password": "why"}
