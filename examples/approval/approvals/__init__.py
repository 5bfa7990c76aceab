"""The approvals desk asks the approver about a purchase, and reports one that is not made."""
