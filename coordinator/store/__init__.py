"""The database: engine, column types, transactions, guarded moves, paging, migrations."""
