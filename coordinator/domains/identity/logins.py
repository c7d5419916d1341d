"""Logging in with a password, and with a second factor where there is one: one way for all doors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from coordinator.domains.identity import assertion_store, lockout, second_factor, security, store
from coordinator.domains.identity.lockout import Guess
from coordinator.domains.identity.passwords import passwords
from coordinator.domains.identity.places import place_of
from coordinator.domains.identity.security import Security
from coordinator.domains.identity.store import Principal
from coordinator.domains.vault.keyring import Keyring
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import Unauthenticated

STEP_SECONDS = 300
"""How long the second step of a login may take."""
GUESSES_PER_STEP = 5

OWN_ACCOUNT_ALONE = ("account:*",)
"""What tokens are good for while a password has to be changed or a second factor set up."""

PEOPLE = frozenset({"user", "operator"})
"""Kinds of principal whose passwords age and who can be made to have a second factor: machines can do neither."""

WRONG = "the password is wrong"
WRONG_CODE = "the code is wrong"
LOCKED = "too many failures: nothing is accepted from there for now"


class LoginRefused(Unauthenticated):
    """The same to every caller; `principal` and `why` are for the audit trail alone."""

    def __init__(self, principal: Principal | None, why: str) -> None:
        super().__init__("name or password is wrong")
        self.principal = principal
        self.why = why


class SecondFactorNeeded(LoginRefused):
    """Name and password are right, and a code is missing. Doors without a second step answer like any refusal."""

    def __init__(self, principal: Principal, guess: Guess) -> None:
        super().__init__(principal, "the second factor is missing")
        self.principal: Principal = principal
        self.guess = guess


@dataclass(frozen=True, slots=True)
class Entry:
    """Somebody who has proved who they are, and what stands between them and their rights."""

    principal: Principal
    password_expired: bool = False
    mfa_setup_required: bool = False
    mfa_grace_ends_at: datetime | None = None
    """Until when they may do without the second factor that is required of them."""
    method: str = "password"
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What their access tokens have to say beside the session: nothing, or that they are good for the account alone."""

    @property
    def is_restricted(self) -> bool:
        return bool(self.claims)


def log_in(
    resources: Resources, login: str, password: str, *, code: str | None = None, address: str | None = None
) -> Entry:
    """Whoever has this name or e-mail address, this password and, where one was set up, a code of the second factor.

    Everything that can be wrong gives the same answer after the same work: one verification of a password, during
    which no transaction is open. Whether guessing has gone on for too long is asked again when the result counts: of
    guesses that run side by side no more are answered than of guesses one after the other.
    """
    place = place_of(address or "")
    guess = lockout.guess_at_name(resources, login, place)
    with resources.database.read() as tx:
        found = store.find_by_login(tx, login)
    hasher = passwords(resources.settings.password_cost)
    right = hasher.matches(found.password_hash if found else None, password)
    renewed = hasher.hash(password) if found and right and hasher.is_outdated(found.password_hash or "") else None
    with resources.database.write() as tx:
        judged = _judged(tx, resources, guess, _Shown(found, right, code))
        if isinstance(judged, Entry):
            _came_in(tx, judged.principal, guess, renewed)
    if isinstance(judged, LoginRefused):
        raise judged
    return judged


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a login has to show for itself."""

    principal: Principal | None
    right: bool
    code: str | None


def _judged(tx: Transaction, resources: Resources, guess: Guess, shown: _Shown) -> Entry | LoginRefused:
    policy, who = security.current(tx), shown.principal
    # Asked for nobody, too: an unknown name must not be known by one question less.
    known = lockout.is_known(tx, "" if who is None else who.id, guess.place)
    if lockout.is_locked(tx, guess, known=known, hold=True):
        return LoginRefused(who, LOCKED)
    if who is None or not shown.right or not who.active:
        locked = lockout.count(tx, guess, policy.lockout, known=known)
        return LoginRefused(who, _why_refused(who, right=shown.right, locked=locked))
    if not second_factor.is_confirmed(tx, who.id):
        return entry(tx, who, has_factor=False)
    if shown.code is None:
        return SecondFactorNeeded(who, guess)
    return _judged_code(tx, resources, guess, who, shown.code)


def _why_refused(who: Principal | None, *, right: bool, locked: bool) -> str:
    if who is None:
        why = "nobody has this name"
    else:
        why = "the principal is switched off" if right else WRONG
    return f"{why}; that was one too many, nothing is accepted from there for a while" if locked else why


def _judged_code(tx: Transaction, resources: Resources, name: Guess, who: Principal, code: str) -> Entry | LoginRefused:
    """Judge the code of somebody whose password was right."""
    policy, known = security.current(tx), lockout.is_known(tx, who.id, name.place)
    guess = lockout.guess_at_code(resources, who.id, name.place)
    if lockout.is_locked(tx, guess, known=known, hold=True):
        return LoginRefused(who, LOCKED)
    method = second_factor.accept(tx, Keyring.of(resources), who.id, code)
    if method is None:
        lockout.count(tx, guess, policy.lockout, known=known)
        return LoginRefused(who, WRONG_CODE)
    lockout.forgive(tx, guess)
    return entry(tx, who, has_factor=True, method=method)


def _came_in(tx: Transaction, who: Principal, guess: Guess, renewed: str | None) -> None:
    lockout.forgive(tx, guess)
    lockout.remember(tx, who.id, guess.place)
    store.record_login(tx, who.id, renewed)


# ---- the second step


def step_claims(needed: SecondFactorNeeded) -> dict[str, Any]:
    """What the token for the second step has to say beside who it is for."""
    return {"name": needed.guess.what}


def log_in_second_step(
    resources: Resources, claims: Mapping[str, Any], code: str, *, address: str | None = None
) -> Entry:
    """Go on with a login whose password was right, by the claims of the token that `log_in` led to.

    The token is good for one login and few guesses.
    """
    place = place_of(address or "")
    with resources.database.write() as tx:
        judged = _judged_step(tx, resources, claims, code, place)
        if isinstance(judged, Entry):
            _came_in(tx, judged.principal, Guess(str(claims.get("name")), place), None)
    if isinstance(judged, LoginRefused):
        raise judged
    return judged


def _judged_step(
    tx: Transaction, resources: Resources, claims: Mapping[str, Any], code: str, place: str
) -> Entry | LoginRefused:
    who = store.find(tx, claims["sub"])
    if who is None or not who.active or _changed_since(who, claims["iat"]):
        return LoginRefused(who, "the login that was begun is not good any more")
    # Counters are held in the order in which `log_in` holds them: name, then code.
    name, step = Guess(str(claims.get("name")), place), lockout.guess_at_step(resources, claims["jti"])
    known = lockout.is_known(tx, who.id, place)
    if any(lockout.is_locked(tx, guess, known=known, hold=True) for guess in (name, step)):
        return LoginRefused(who, LOCKED)
    judged = _judged_code(tx, resources, name, who, code)
    if isinstance(judged, LoginRefused):
        few = security.LockoutPolicy(max_failures=GUESSES_PER_STEP)
        lockout.count(tx, step, few, known=True)
        return judged
    until = tx.now + timedelta(seconds=STEP_SECONDS)
    if not assertion_store.use(tx, f"step {claims['jti']}", until):
        return LoginRefused(who, "the login that was begun was finished before")
    return judged


def _changed_since(who: Principal, issued_at: int) -> bool:
    # Tokens tell whole seconds.
    return who.password_changed_at is not None and who.password_changed_at.timestamp() >= issued_at + 1


# ---- what stands in the way


def entry(tx: Transaction, who: Principal, *, has_factor: bool, method: str = "password") -> Entry:
    """Somebody who came in by a password, held against the policies of today."""
    policy = security.current(tx)
    expired = is_password_expired(who, policy, tx.now)
    lacking = lacks_factor(who, policy) and not has_factor
    grace = security.grace_ends_at(policy.mfa, who.created_at) if lacking else None
    restricted = expired or (grace is not None and tx.now >= grace)
    return Entry(
        who,
        password_expired=expired,
        mfa_setup_required=lacking,
        mfa_grace_ends_at=grace,
        method=method,
        claims={"lim": list(OWN_ACCOUNT_ALONE)} if restricted else {},
    )


def renewed_entry(tx: Transaction, who: Principal) -> Entry:
    """The same for somebody who renews their tokens: what was missing may have been made up for by now."""
    asked = lacks_factor(who, security.current(tx))
    return entry(tx, who, has_factor=asked and second_factor.is_confirmed(tx, who.id))


def lacks_factor(who: Principal, policy: Security) -> bool:
    """Whether a second factor is required of somebody like this."""
    return policy.mfa.enabled and policy.mfa.required and who.kind in PEOPLE and who.password_hash is not None


def is_password_expired(who: Principal, policy: Security, now: datetime) -> bool:
    """Whether the password is older than the policy allows. Who has none has none that could be too old."""
    days = policy.password_policy.max_age_days
    if not days or who.kind not in PEOPLE or who.password_hash is None:
        return False
    return now >= (who.password_changed_at or who.created_at) + timedelta(days=days)


# ---- proving it again


def proves_again(
    resources: Resources, who: Principal, *, password: str | None, code: str | None = None, address: str | None = None
) -> bool:
    """Whether somebody who is logged in knows their password, or has a code. Guesses count like those at the door."""
    place = place_of(address or "")
    guess = lockout.guess_at_name(resources, who.name, place)
    hasher = passwords(resources.settings.password_cost)
    right = password is not None and hasher.matches(who.password_hash, password)
    with resources.database.write() as tx:
        known, policy = lockout.is_known(tx, who.id, place), security.current(tx)
        if lockout.is_locked(tx, guess, known=known, hold=True):
            return False
        if code is not None and not right:
            return isinstance(_judged_code(tx, resources, guess, who, code), Entry)
        if not right:
            lockout.count(tx, guess, policy.lockout, known=known)
    return right
