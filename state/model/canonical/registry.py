"""Which entity a contract name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from state.model.canonical.entity import Entity
from state.model.canonical.forecast import Forecast
from state.model.canonical.inventory_balance import InventoryBalance
from state.model.canonical.item_supplier import ItemSupplier
from state.model.canonical.location import Location
from state.model.canonical.order_acknowledgement import OrderAcknowledgement
from state.model.canonical.party import Party
from state.model.canonical.product import Product
from state.model.canonical.purchase_order import PurchaseOrder
from state.model.canonical.replenishment_recommendation import ReplenishmentRecommendation
from state.model.canonical.sales_order import SalesOrder
from state.model.errors import ConfigError
from state.model.visible import shown

_KINDS: Final[tuple[type[Entity], ...]] = (
    Forecast,
    InventoryBalance,
    ItemSupplier,
    Location,
    OrderAcknowledgement,
    Party,
    Product,
    PurchaseOrder,
    ReplenishmentRecommendation,
    SalesOrder,
)

ENTITIES: Final[Mapping[str, type[Entity]]] = MappingProxyType({kind.contract(): kind for kind in _KINDS})
"""Every entity by its contract name, such as `purchase-order/1`."""


def entity_type(contract: str) -> type[Entity]:
    """The entity of a contract name. Raises `ConfigError` (`unknown-contract`) that suggests the nearest name."""
    kind = ENTITIES.get(contract)
    if kind is None:
        raise ConfigError(
            f"there is no contract {shown(contract)}", hint=_suggestion(contract), code="unknown-contract"
        )
    return kind


def _suggestion(contract: str) -> str:
    asked = contract[:64].lower().replace("_", "-")
    near = get_close_matches(asked if "/" in asked else f"{asked}/1", ENTITIES, 1, 0.6)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(ENTITIES)}"
