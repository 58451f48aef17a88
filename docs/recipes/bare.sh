#!/bin/sh
# A bare repository for pushes, protected from the start, for a group of users.
#
# usage: bare.sh DIRECTORY
set -eu
repository=$1

git init -q --bare --shared=group "$repository"
# Pushes that would lose commits are refused, and there is a history of each branch.
git -C "$repository" config receive.denyNonFastForwards true
git -C "$repository" config core.logAllRefUpdates true
jin-txn -q install "$repository"
jin-txn -C "$repository" status
