"""The science and the stages. Imports models and storage; knows neither Prefect nor Typer."""
