"""The messages on the broker: small, readable, without secrets."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import fakeredis

from shared.ids import new_id
from shared.queue.names import node_queue
from shared.queue.tickets import MAX_TICKET_BYTES, RunTicket, nudge_message, ping_message, publish, run_message


def _ticket(agent: str = "builder") -> RunTicket:
    return RunTicket(attempt=new_id(), job=new_id(), number=2, node=new_id(), agent=agent)


def test_the_celery_id_is_the_attempt_and_flower_reads_agent_job_and_try() -> None:
    ticket = _ticket()
    headers = json.loads(run_message(ticket))["headers"]
    assert (headers["task"], headers["id"]) == ("agent.run", ticket.attempt)
    assert headers["argsrepr"] == f"builder job={ticket.job} try=2"


def test_the_body_holds_ids_only() -> None:
    ticket = _ticket()
    args, kwargs, _ = json.loads(base64.b64decode(json.loads(run_message(ticket))["body"]))
    assert args == []
    assert kwargs == {"v": 1, "job": ticket.job, "attempt": ticket.attempt, "number": 2, "node": ticket.node}


def test_a_job_without_a_computer_has_a_light_ticket() -> None:
    ticket = replace(_ticket(), takes_slot=False)
    assert json.loads(base64.b64decode(json.loads(run_message(ticket))["body"]))[1]["light"] is True


def test_a_ticket_stays_under_a_kilobyte_whatever_the_agent_is_called() -> None:
    assert len(run_message(_ticket("名" * 200))) < MAX_TICKET_BYTES


def test_many_messages_for_many_nodes_arrive_in_their_order() -> None:
    client = fakeredis.FakeRedis()
    first, second, other = run_message(_ticket()), nudge_message("one"), ping_message("two")
    publish(client, {"one": [first, second], "two": [other], "three": []})
    assert [client.rpop(node_queue("one")), client.rpop(node_queue("one"))] == [first, second]
    assert client.rpop(node_queue("two")) == other
    assert client.keys() == []


def test_the_same_attempt_sent_twice_is_two_deliveries() -> None:
    ticket = _ticket()
    tags = {json.loads(run_message(ticket))["properties"]["delivery_tag"] for _ in range(2)}
    assert len(tags) == 2
