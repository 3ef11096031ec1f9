-- The server's first start: Dagster's own storage beside the warehouse.
create database dagster;
