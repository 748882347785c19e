insert into public.plain (key, payload) values ('k', '$payload');
