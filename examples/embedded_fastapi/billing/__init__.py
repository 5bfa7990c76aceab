"""Billing charges the fee of an enrolment."""
