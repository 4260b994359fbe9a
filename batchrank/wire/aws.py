"""
Requests that are signed with AWS's credentials: SigV4, through botocore's own signer.

Owns where the credentials come from (botocore's chain: environment, profiles, SSO, web identity,
container, instance, and their refresh), that they are looked at once a minute, and what of a
request is signed: what `transport` sends, byte for byte. The only module that knows botocore,
which is loaded when a job needs it, and not before.

Never repeats what botocore says of credentials: its words hold what tools of others printed.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchrank.errors import JobError, Problem
from batchrank.providers.base import HttpCall, HttpReply, date_epoch_s
from batchrank.wire.auth import Secret
from batchrank.wire.carrier import Lines
from batchrank.wire.failures import ClockOff, KeyNotRenewed

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials

LOOKED_AT_S = 60.0
"""How often botocore is asked whether it has others; it gets them some minutes before they end."""

SECRETS_KEPT = 9
"""Id, key and token of the last three credentials: calls with those before are under way."""

CLOCK_OFF_S_MAX = 300.0
"""AWS refuses signatures that are older or newer than five minutes."""

SIGNED = ("content-type", "x-amz-")
"""
How headers begin that are signed, beside the host's: what proxies on the way add to or take from
others then breaks no signature.
"""

NOT_GOOD = (b"ExpiredToken", b"UnrecognizedClient", b"InvalidClientTokenId", b"InvalidAccessKeyId")
WRONG_TIME = (b"InvalidSignature", b"SignatureDoesNotMatch", b"RequestExpired", b"TimeTooSkewed")
"""Names of errors, or their beginnings: of all services, in a header or in the body."""


class AwsKey:
    """
    AWS's credentials, for requests to *service* in *region*.

    *resolve* finds them anew, as at the start of a process; *wall* is seconds since the epoch.

    Raises:
        JobError: botocore is not installed, or finds none.
    """

    def __init__(
        self,
        service: str,
        region: str,
        *,
        resolve: Callable[[], Credentials | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._botocore = _Botocore(service, region)
        self._resolve = resolve or self._botocore.resolve
        self._clock = clock
        self._wall = wall
        self._secrets: tuple[Secret, ...] = ()
        self._credentials: Credentials | None = None
        self._frozen: ReadOnlyCredentials | None = None
        try:
            self.renew(refused=True)
        except KeyNotRenewed as error:
            raise _refused(str(error), WAYS) from None

    def __repr__(self) -> str:
        return "<AwsKey>"

    def lines(self, call: HttpCall) -> Lines:
        """
        The signature, when it was made, and the session's token if there is one.
        """
        return self._botocore.signed(self._frozen, call)

    def is_due(self) -> bool:
        """
        Tell whether botocore was last asked too long ago.
        """
        return self._clock() - self._asked_at > LOOKED_AT_S

    def is_refused(self, reply: HttpReply) -> bool:
        """
        Tell whether AWS does not know the credentials, or no longer.

        Raises:
            ClockOff: it knows them, and the clock here is wrong.
        """
        if reply.status not in (400, 401, 403):
            return False
        said = reply.headers.get("x-amzn-errortype", "").encode() + reply.body
        if any(name in said for name in WRONG_TIME):
            self._check_clock(reply)
        return any(name in said for name in NOT_GOOD)

    def renew(self, *, refused: bool) -> bool:
        """
        Ask botocore for the credentials as they are now, or, where they were *refused*, find them
        anew; tell whether they are others.

        Raises:
            KeyNotRenewed: there are none.
        """
        self._asked_at = self._clock()
        before = self._frozen
        try:
            known = None if refused else self._credentials
            credentials = known or self._resolve()
            frozen = credentials and credentials.get_frozen_credentials()
        except self._botocore.errors as error:
            why = f"AWS credentials cannot be had: {type(error).__name__}"
            raise KeyNotRenewed(why) from None
        if not frozen or not frozen.access_key:
            raise KeyNotRenewed("there are no AWS credentials")
        if frozen != before:
            self._secrets = (*_secrets_of(frozen), *self._secrets)[:SECRETS_KEPT]
        self._credentials, self._frozen = credentials, frozen
        return bool(frozen != before)

    def close(self) -> None:
        """
        Nothing: botocore cannot be interrupted.
        """

    def redact(self, text: str) -> str:
        """
        *text* without the credentials, nor those before: AWS repeats what should have been signed,
        and the session's token is in that.
        """
        for secret in self._secrets:
            text = secret.redact(text)
        return text

    def _check_clock(self, reply: HttpReply) -> None:
        theirs_s = date_epoch_s(reply.headers.get("date"))
        off_s = 0.0 if theirs_s is None else self._wall() - theirs_s
        if abs(off_s) > CLOCK_OFF_S_MAX:
            behind = "ahead of" if off_s > 0 else "behind"
            raise ClockOff(
                f"this machine's clock is {abs(off_s) / 60:.0f} minutes {behind} AWS's, which"
                " therefore refuses its signatures: set the clock"
            )


WAYS = (
    "as for AWS's own tools: AWS_PROFILE, AWS_ACCESS_KEY_ID, a role; `aws sts get-caller-identity`"
    " shows whether they are found"
)


def _secrets_of(frozen: ReadOnlyCredentials) -> list[Secret]:
    """
    What of the credentials may not be repeated.

    Raises:
        KeyNotRenewed: they would break the request, or make it another one.
    """
    texts = [text for text in (frozen.token, frozen.secret_key, frozen.access_key) if text]
    if not all(re.fullmatch(r"[\x21-\x7e]+", text) for text in texts):
        raise KeyNotRenewed("the AWS credentials hold a character that none have")
    return [Secret(text) for text in texts]


class _Botocore:
    """
    What is used of botocore.
    """

    def __init__(self, service: str, region: str) -> None:
        try:
            import botocore.auth
            import botocore.awsrequest
            import botocore.exceptions
            import botocore.session
        except ImportError:
            remedy = "pip install 'batchrank[bedrock]'"
            raise _refused("signs its requests, and botocore is not installed", remedy) from None
        # Below that it logs what it signs, with the session's token, and replies that hold keys.
        logging.getLogger("botocore").setLevel(logging.ERROR)
        self._session: Any = botocore.session.Session
        self._signer: Any = botocore.auth.SigV4Auth
        self._request: Any = botocore.awsrequest.AWSRequest
        self._for = (service, region)
        self.errors: tuple[type[Exception], ...] = (
            *(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError),
            # files and commands that are not there, or say something else than credentials
            *(OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError),
        )

    def resolve(self) -> Credentials | None:
        """
        The first credentials of the chain.
        """
        return self._session().get_credentials()

    def signed(self, credentials: ReadOnlyCredentials | None, call: HttpCall) -> Lines:
        """
        What *call* has to be sent with.
        """
        headers = {name: value for name, value in call.headers if name.startswith(SIGNED)}
        request = self._request(call.method, call.url, headers=headers, data=call.body)
        self._signer(credentials, *self._for).add_auth(request)
        return tuple((name.lower(), value) for name, value in request.headers.items())


def _refused(message: str, remedy: str) -> JobError:
    return JobError("the key", [Problem(0, "provider.name", message, remedy)])
