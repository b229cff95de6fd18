use super::*;

fn said(text: &str) -> Failure {
    let tail: Vec<String> = text.lines().map(str::to_owned).collect();
    explain("pg_dump", &Ending::Exited(1), &tail)
}

/// What pg_dump and pg_dumpall 15.18 wrote, and what is made of it.
const RECORDED: &[(&str, ErrorClass, ExitCode, &str)] = &[
    (
        "pg_dump: error: connection to server on socket \"/tmp/sock/.s.PGSQL.5432\" failed: No such file or directory\n\
         \tIs the server running locally and accepting connections on that socket?",
        ErrorClass::Transient,
        ExitCode::Connection,
        "PostgreSQL is running",
    ),
    (
        "pg_dump: error: connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\
         \tIs the server running on that host and accepting TCP/IP connections?",
        ErrorClass::Transient,
        ExitCode::Connection,
        "PostgreSQL is running",
    ),
    (
        "pg_dump: error: could not translate host name \"nosuch.invalid\" to address: Name or service not known",
        ErrorClass::Transient,
        ExitCode::Connection,
        "name service",
    ),
    (
        "pg_dump: error: connection to server on socket \"/s/.s.PGSQL.5432\" failed: fe_sendauth: no password supplied",
        ErrorClass::Config,
        ExitCode::Connection,
        "password",
    ),
    (
        "pg_dump: error: connection to server on socket \"/s/.s.PGSQL.5432\" failed: FATAL:  password authentication \
         failed for user \"scram\"",
        ErrorClass::Config,
        ExitCode::Connection,
        "password",
    ),
    (
        "pg_dump: error: connection to server on socket \"/s/.s.PGSQL.5432\" failed: FATAL:  pg_hba.conf rejects \
         connection for host \"[local]\", user \"refused\", database \"shop\", no encryption",
        ErrorClass::Config,
        ExitCode::Connection,
        "Let this role in",
    ),
    (
        "pg_dump: error: connection to server on socket \"/s/.s.PGSQL.5432\" failed: FATAL:  database \"nosuch\" does not \
         exist",
        ErrorClass::Config,
        ExitCode::Connection,
        "Correct the database",
    ),
    (
        "pg_dump: error: connection to server on socket \"/s/.s.PGSQL.5432\" failed: FATAL:  role \"nosuch\" does not exist",
        ErrorClass::Config,
        ExitCode::Connection,
        "the role exists",
    ),
    (
        "pg_dump: error: connection to server on socket \"/s/.s.PGSQL.5432\" failed: FATAL:  sorry, too many clients \
         already",
        ErrorClass::Transient,
        ExitCode::Connection,
        "max_connections",
    ),
    ("pg_dump: error: definition of service \"nosuch\" not found", ErrorClass::Config, ExitCode::Connection, "service"),
    (
        "pg_dumpall: error: missing \"=\" after \"shop\" in connection info string",
        ErrorClass::Config,
        ExitCode::Connection,
        "connection",
    ),
    (
        "pg_dump: error: query failed: ERROR:  permission denied for table big\n\
         pg_dump: detail: Query was: LOCK TABLE public.big IN ACCESS SHARE MODE",
        ErrorClass::Config,
        ExitCode::Configuration,
        "pg_read_all_data",
    ),
    (
        "pg_dumpall: error: query failed: ERROR:  permission denied for table pg_authid\n\
         pg_dumpall: detail: Query was: SELECT oid, rolname FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 2",
        ErrorClass::Config,
        ExitCode::Configuration,
        "superuser",
    ),
    (
        "pg_dump: error: query failed: ERROR:  query would be affected by row-level security policy for table \"rls\"\n\
         pg_dump: detail: Query was: COPY public.rls (a) TO stdout;",
        ErrorClass::Config,
        ExitCode::Configuration,
        "bypassrls",
    ),
    (
        "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout\n\
         pg_dump: detail: Query was: LOCK TABLE public.big IN ACCESS SHARE MODE",
        ErrorClass::Transient,
        ExitCode::Busy,
        "LOCK TABLE",
    ),
    (
        "pg_dump: error: query failed: ERROR:  out of shared memory\n\
         HINT:  You might need to increase max_locks_per_transaction.\n\
         pg_dump: detail: Query was: LOCK TABLE public.many157 IN ACCESS SHARE MODE",
        ErrorClass::Config,
        ExitCode::Configuration,
        "max_locks_per_transaction",
    ),
    (
        "pg_dump: error: could not write to output file: No space left on device",
        ErrorClass::Space,
        ExitCode::NoSpace,
        "Free space",
    ),
    (
        "pg_dump: error: could not create directory \"/nosuch/x\": No such file or directory",
        ErrorClass::Config,
        ExitCode::Storage,
        "scratch_dir",
    ),
    (
        "pg_dump: error: Dumping the contents of table \"big\" failed: PQgetCopyData() failed.\n\
         pg_dump: detail: Error message from server: server closed the connection unexpectedly\n\
         \tThis probably means the server terminated abnormally\n\
         \tbefore or while processing the request.\n\
         pg_dump: detail: Command was: COPY public.big (id, t) TO stdout;",
        ErrorClass::Transient,
        ExitCode::Connection,
        "its log",
    ),
    (
        "pg_dump: error: Dumping the contents of table \"big\" failed: PQgetResult() failed.\n\
         pg_dump: detail: Error message from server: ERROR:  invalid page in block 10 of relation base/16388/16399\n\
         pg_dump: detail: Command was: COPY public.big (id, t) TO stdout;",
        ErrorClass::Integrity,
        ExitCode::VerificationFailed,
        "damaged",
    ),
    // Its words in the source; no older tool was at hand.
    (
        "pg_dump: error: aborting because of server version mismatch\n\
         pg_dump: detail: server version: 17.2; pg_dump version: 15.18",
        ErrorClass::Config,
        ExitCode::ToolNotFound,
        "tool_dir",
    ),
];

#[test]
fn every_recorded_ending_has_its_class_and_its_remedy() {
    for (text, class, exit, remedy) in RECORDED {
        let failure = said(text);
        assert_eq!((failure.class, failure.exit), (*class, *exit), "{text}");
        assert!(failure.remedy.as_ref().unwrap().contains(remedy), "{text}: {failure:?}");
    }
}

#[test]
fn the_message_is_one_line_without_the_tools_name() {
    let failure = said(RECORDED[14].0);
    insta::assert_snapshot!(failure.message, @"`pg_dump` exited with code 1: query failed: ERROR:  canceling statement due to statement timeout; Query was: LOCK TABLE public.big IN ACCESS SHARE MODE");
    let failure = said("pg_dump: warning: there are circular foreign-key constraints\npg_dump: error: odd");
    assert_eq!((failure.message.as_str(), failure.class), ("`pg_dump` exited with code 1: odd", ErrorClass::Defect));
    assert_eq!(said("").message, "`pg_dump` exited with code 1");
    assert!(said(&"é".repeat(5000)).message.chars().count() < LONGEST + 50);
}

#[test]
fn a_killed_tool_points_at_the_memory_and_a_stopped_one_at_nothing() {
    let ended = |ending| explain("pg_dump", &ending, &[]);
    let killed = ended(Ending::Signalled(9));
    assert_eq!(killed.class, ErrorClass::Transient);
    assert!(killed.remedy.unwrap().contains("memory"));
    assert_eq!(ended(Ending::Signalled(15)).class, ErrorClass::Stopped);
    assert_eq!(ended(Ending::Signalled(13)).exit, ExitCode::Storage);
    assert_eq!(ended(Ending::Stopped).remedy, None);
    assert_eq!(ended(Ending::TimedOut).class, ErrorClass::Transient);
}
