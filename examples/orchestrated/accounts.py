"""The order saga's checks of goods and money, for `saga verify`: who asks the steps makes no difference to them."""

from services.accounts import CHECKS

__all__ = ["CHECKS"]
