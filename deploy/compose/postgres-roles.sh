#!/bin/sh
# Makes the database `app` and its owner, who is no superuser: the relay needs none.
# Whether it is run or read into another shell, it must not change that shell's options.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set password="$APP_PASSWORD" --username "${POSTGRES_USER:-postgres}" <<'SQL'
create role app login password :'password';
create database app owner app;
SQL
