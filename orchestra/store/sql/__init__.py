"""The SQL store: one implementation over SQLAlchemy Core."""
