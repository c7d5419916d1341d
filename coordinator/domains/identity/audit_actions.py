"""The catalogue of what the audit trail tells: each action once, with the sentence that explains it."""

from __future__ import annotations

ACTIONS: dict[str, str] = {
    "agent.paused": "An agent takes no more work.",
    "agent.resumed": "An agent takes work again.",
    "audit.pruned": "Rows older than the retention allows were removed; `after` says where the chain goes on.",
    "breaker.closed": "A circuit breaker closed by itself, after enough successes.",
    "breaker.configured": "A circuit breaker was made, or the numbers it decides by were changed.",
    "breaker.forced_closed": "A circuit breaker was closed until it is reset.",
    "breaker.forced_open": "A circuit breaker was opened until it is reset.",
    "breaker.half_opened": "A circuit breaker lets a probe through.",
    "breaker.opened": "A circuit breaker opened by itself, after too many failures.",
    "breaker.reset": "A circuit breaker was closed and its counts were cleared.",
    "data_key.rotated": "Stored secrets were sealed by another data key.",
    "dead_letter.added": "A job was put among the dead letters by hand.",
    "dead_letter.dismissed": "A dead letter was deleted.",
    "dead_letter.pruned": "Dead letters that were older than the retention allows were removed.",
    "dead_letter.redriven": "A dead job was sent round again.",
    "dead_letter.redriven_all": "All dead jobs that matched were sent round again.",
    "enrolment_token.created": "A token with which a worker can enrol was made.",
    "enrolment_token.revoked": "An enrolment token was revoked before it was used.",
    "fleet.paused": "The whole fleet takes no more work.",
    "fleet.resumed": "The whole fleet takes work again.",
    "group.paused": "A group of workers takes no more work.",
    "group.resumed": "A group of workers takes work again.",
    "identity_provider.changed": "What is known about an identity provider was changed, or it was switched off or on.",
    "identity_provider.created": "Somebody's word about who people are is taken from now on.",
    "identity_provider.deleted": "An identity provider was deleted, and the sessions that its word had opened ended.",
    "ip_rules.changed": "The lists of addresses from which one may call were replaced.",
    "key.created": "Somebody made an API key.",
    "key.revoked": "An API key was revoked, by its owner or by an admin.",
    "key.used": "A key or a worker's credential was used from this address, for the first time that day.",
    "master_key.changed": "The data keys were wrapped by another master key.",
    "request.refused": "Somebody showed a credential that is not good, or asked for what they may not do.",
    "role.created": "A role was made; what it grants counts for whoever holds it.",
    "role.deleted": "A role was deleted, and taken from all who held it.",
    "role_binding.created": "Somebody was given a role, everywhere or in a space.",
    "role_binding.deleted": "A role was taken from somebody.",
    "security.changed": "An admin changed a security setting.",
    "session.begun": "Somebody showed the right password and was asked for the second factor.",
    "session.ended": "A login was ended, by its owner or because one of its tokens was shown twice.",
    "session.opened": "Somebody logged in.",
    "space.changed": "A space was changed, switched off or on.",
    "space.created": "A space was made.",
    "space.deleted": "An empty space was deleted.",
    "token.issued": "An admin was given a token that acts as somebody else.",
    "user.changed": "An account was changed, by its owner or by an admin.",
    "user.created": "A principal was made.",
    "user.deleted": "An account was deleted.",
    "user.mfa_disabled": "A second factor was taken away, by its owner or by an admin.",
    "user.mfa_enabled": "Somebody set up a second factor, and confirmed it with a code.",
    "user.mfa_started": "Somebody began to set up a second factor.",
    "user.password_changed": "Somebody chose another password; all their other sessions ended.",
    "user.password_reset": "A password was set by somebody else than its owner; all sessions ended.",
    "user.registered": "Somebody made an account for themselves.",
    "user.unlocked": "An admin ended a lock-out.",
    "worker.approved": "A worker was let in.",
    "worker.drained": "A worker was told to finish what it has and take no more.",
    "worker.enrolled": "A host asked to become a worker.",
    "worker.fenced": "A worker's machine was said to be off, so that its exclusive work may run elsewhere.",
    "worker.paused": "A worker takes no more work.",
    "worker.rejected": "A worker was cut off.",
    "worker.removed": "A worker was removed for good.",
    "worker.resumed": "A worker takes work again.",
}
"""Each is `noun.verb`; the noun is the type of what was acted on, unless a row says otherwise."""


def require_known(action: str) -> str:
    """The action, if the catalogue has it: a misspelt one would never be found by whoever filters for it."""
    if action not in ACTIONS:
        raise ValueError(f"{action!r} is not in the catalogue of identity/audit_actions.py")
    return action


def noun_of(action: str) -> str:
    """What the action is done to."""
    return action.partition(".")[0]
