#!/bin/sh
# A trigger of gitolite: protects each repository that gitolite creates, and recovers one before its refs are shown.
#
# Copy it to ~/local/triggers/jin-txn, and write into ~/.gitolite.rc:
#
#     LOCAL_CODE  => "$ENV{HOME}/local",
#     PRE_GIT     => [ 'jin-txn' ],
#     POST_CREATE => [ 'jin-txn' ],
#
# gitolite calls it with the name of the trigger and of the repository. jin-txn has to be in the PATH of gitolite's user.
repository=$(gitolite query-rc GL_REPO_BASE)/$2.git
case $1 in
    POST_CREATE) jin-txn -q install "$repository" ;;
    PRE_GIT) jin-txn -q --git-dir "$repository" recover ;;
esac
# Whatever it found: git decides on the request.
exit 0
