-- What one network names is nobody else's business: names of users and of tokens are unique in their
-- network, so that an admin of one network learns from no conflict what there is in another.

-- Such an admin's users give the network beside the name when they sign in: the name alone may be that
-- of another network's user. Users of before, and those that an admin of all networks creates, sign in
-- with the name alone.
alter table account
    add column signs_in_with_network boolean not null default false,
    add constraint account_sign_in check (network_identifier is not null or not signs_in_with_network),
    drop constraint account_name;
create unique index account_name on account (name) where not signs_in_with_network;
create unique index account_network_name on account (network_identifier, name) nulls not distinct;

drop index token_name;
create unique index token_name on token (network_identifier, name) nulls not distinct
    where account_identifier is null;
