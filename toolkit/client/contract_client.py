"""The contract of a running service whose address is all that is known of it."""

from __future__ import annotations

from pydantic import SecretStr, ValidationError

from toolkit.client.http_connection import HttpConnection, json_object
from toolkit.declaration.contract import Contract
from toolkit.errors import UnreachableError

_PATH = "/contract"


class ContractClient(HttpConnection):
    """Reads a contract; the URL is that of the service's API, or of the contract itself.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(self, url: str, *, token: SecretStr | None = None, read_token: SecretStr | None = None) -> None:
        super().__init__("a service", url.removesuffix(_PATH), token=token, read_token=read_token)

    async def contract(self) -> Contract:
        """Request the contract.

        Raises:
            UnreachableError: the service does not answer, or with something else.
        """
        response = await self._response("GET", _PATH, headers=self._reading)
        self.service = str(json_object(response).get("service") or self.service)
        try:
            return Contract.model_validate(self._content(response))
        except ValidationError as error:
            raise UnreachableError(f"{self.address} returns no contract that can be read") from error
