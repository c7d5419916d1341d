"""The Celery settings that our promises rest on."""

from __future__ import annotations

from shared.queue.app import make_app
from shared.queue.broker import parse_broker


def test_a_node_reads_its_own_queue_and_no_other() -> None:
    app = make_app("redis://localhost/0", node_id="n1")
    assert list(app.amqp.queues) == ["node.n1"]


def test_nothing_but_json_is_read_and_nobody_commands_a_node_over_the_broker() -> None:
    conf = make_app("redis://localhost/0", node_id="n1").conf
    assert conf.accept_content == ["json"]
    assert conf.worker_enable_remote_control is False


def test_results_are_not_kept_on_the_broker() -> None:
    app = make_app("redis://localhost/0")
    assert app.conf.task_ignore_result is True
    assert app.conf.result_backend is None


def test_acknowledgements_cost_nothing_and_prefetch_is_not_held_back() -> None:
    conf = make_app("redis://localhost/0", node_id="n1").conf
    assert conf.broker_transport_options["ack_emulation"] is False
    # The two exclude each other: together they let one ticket through a second.
    assert conf.worker_prefetch_multiplier == 0
    assert conf.worker_disable_prefetch is False


def test_a_node_needs_one_key_to_read_its_queue_and_declares_nothing() -> None:
    app = make_app("redis://localhost/0", node_id="n1")
    assert app.conf.broker_transport_options["priority_steps"] == [0]
    assert all(queue.no_declare for queue in app.amqp.queues.values())


def test_two_nodes_share_no_key_but_the_events() -> None:
    keys = [
        {
            value
            for name, value in make_app("redis://localhost/0", node_id=node).conf.broker_transport_options.items()
            if name.startswith("unacked")
        }
        for node in ("n1", "n2")
    ]
    assert not keys[0] & keys[1]
    assert len(keys[0]) == 3


def test_nobody_waits_for_the_broker_without_end_and_the_publisher_not_long() -> None:
    options = make_app("redis://localhost/0", node_id="n1").conf.broker_transport_options
    assert 1 < options["socket_timeout"] <= 10
    client = parse_broker("redis://localhost/0").client()
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 2.0
    client.close()


def test_tls_certificates_are_checked_by_celery_too() -> None:
    app = make_app("rediss://localhost/0", node_id="n1")
    assert app.conf.broker_use_ssl["ssl_check_hostname"] is True
