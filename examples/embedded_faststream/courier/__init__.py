"""The courier delivers parcels."""
