"""Endpoints of the lists of addresses."""

from __future__ import annotations

import ipaddress
from typing import Any

from marshmallow import ValidationError, pre_load

from coordinator.domains.identity import ip_rules
from coordinator.domains.identity.ip_rules import ALLOW, DENY, GREATEST_COUNT, Rule
from coordinator.http.schemas import Body, View, fields, validate
from coordinator.http.slice import Call, Slice

addresses = Slice("addresses", "From where one may call")


class Network(fields.String):
    """An address, or a network of them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return str(ipaddress.ip_network(text.strip()))
        except ValueError as error:
            raise ValidationError(f"is not a network: {error}") from None


class RuleBody(Body):
    """One rule."""

    cidr = Network(required=True, validate=validate.Length(1, 64))
    action = fields.String(required=True, validate=validate.OneOf([ALLOW, DENY]))
    description = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=1000))


class RulesBody(Body):
    """All rules, in the place of those that are there."""

    rules = fields.List(fields.Nested(RuleBody), required=True, validate=validate.Length(max=GREATEST_COUNT))
    confirm = fields.Boolean(
        load_default=False, metadata={"description": "take rules that shut out the address this request comes from"}
    )

    @pre_load
    def _other_spelling(self, data: Any, **_: Any) -> Any:
        if "ip_rules" in data and "rules" not in data:
            return {**{name: value for name, value in data.items() if name != "ip_rules"}, "rules": data["ip_rules"]}
        return data


class RuleView(View):
    """One rule."""

    cidr = fields.String()
    action = fields.String()
    description = fields.String(allow_none=True)


class RulesView(View):
    """All rules that are in force."""

    rules = fields.List(fields.Nested(RuleView))


@addresses.get("/security/ip-rules", may="security:read", reply=RulesView)
def get_ip_rules(call: Call) -> dict[str, Any]:
    """Show from which addresses one may call.

    Without a rule from everywhere. A rule that denies wins; as soon as one allows, whatever none allows is shut out.
    """
    return _view(ip_rules.stored(call.tx))


@addresses.put(
    "/security/ip-rules",
    may="security:write",
    body=RulesBody,
    reply=RulesView,
    errors=(409,),
    audit="ip_rules.changed",
    example={"rules": [{"cidr": "192.0.2.0/24", "action": "allow", "description": "the office"}]},
)
def put_ip_rules(call: Call) -> dict[str, Any]:
    """Say from which addresses one may call, nodes and browsers included.

    Rules that would shut out the address this request comes from are refused, unless it is said that they are meant.
    Loopback addresses are never shut out.
    """
    rules = tuple(Rule.of(each) for each in call.body["rules"])
    before = ip_rules.replace(
        call.tx, rules, by=call.actor.id, address=call.witness.address, confirmed=call.body["confirm"]
    )
    call.audit("ip_rules.changed", before=_view(before), after=_view(rules))
    return _view(rules)


def _view(rules: tuple[Rule, ...]) -> dict[str, Any]:
    return {"rules": [rule.view for rule in rules]}
