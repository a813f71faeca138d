"""The Prefect flow, its deployments, and the server."""
