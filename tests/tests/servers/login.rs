//! Who may come in, and to whom a handle belongs.

use arrow_flight::error::FlightError;
use arrow_flight::{Action, Empty};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tidemill_flight_server::client::Target;
use tidemill_flight_server::{Client, ServeOptions, serve};
use tidemill_tests::flight::{Result, Server, query, read, tls};
use tokio::net::TcpListener;
use tonic::{Code, Request};

const USERS: [(&str, &str); 2] = [("ann", "secret"), ("bob", "hidden")];

fn code<T>(result: Result<T, FlightError>) -> Option<Code> {
    match result.err()? {
        FlightError::Tonic(status) => Some(status.code()),
        other => panic!("no status: {other}"),
    }
}

#[tokio::test]
async fn only_a_right_password_opens() -> Result {
    let server = Server::with_users(&USERS).await?;
    let mut ann = server.flight_as("ann", "secret").await?;
    assert_eq!(query(&mut ann, "SELECT 1").await?.len(), 1);
    for (user, password) in [("ann", "hidden"), ("ann", ""), ("eve", "secret"), ("", "")] {
        let refused = server.flight_as(user, password).await.err().ok_or("it opened")?;
        assert!(refused.to_string().contains("wrong user name or password"), "{refused}");
    }
    server.stop().await
}

#[tokio::test]
async fn nothing_is_answered_without_a_token() -> Result {
    let server = Server::with_users(&USERS).await?;
    let mut stranger = server.flight().await?;
    let refused = Some(Code::Unauthenticated);
    assert_eq!(code(stranger.execute("SELECT 1".to_owned(), None).await), refused);
    assert_eq!(code(stranger.get_catalogs().await), refused);
    assert_eq!(code(stranger.prepare("SELECT 1".to_owned(), None).await), refused);
    assert_eq!(code(stranger.execute_update("SELECT 1".to_owned(), None).await), refused);
    let listed = stranger.inner_mut().list_actions(Request::new(Empty {})).await;
    assert_eq!(listed.err().map(|status| status.code()), refused);
    stranger.set_token("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
    assert_eq!(code(stranger.get_catalogs().await), refused);

    stranger.clear_token();
    stranger.set_header("authorization", format!("Basic {}", BASE64_STANDARD.encode("ann:secret")));
    assert_eq!(code(stranger.get_catalogs().await), refused, "Basic is for Handshake");
    server.stop().await
}

#[tokio::test]
async fn a_handle_is_of_no_use_to_others() -> Result {
    let server = Server::with_users(&USERS).await?;
    let mut ann = server.flight_as("ann", "secret").await?;
    let mut bob = server.flight_as("bob", "hidden").await?;
    let info = ann.execute("SELECT 1".to_owned(), None).await?;
    let stolen = read(&mut bob, info.clone()).await.err().ok_or("bob read it")?;
    assert!(stolen.to_string().contains("is not yours"), "{stolen}");
    assert_eq!(read(&mut ann, info).await?.len(), 1, "ann still can");
    server.stop().await
}

#[tokio::test]
async fn a_closed_session_has_no_token_any_more() -> Result {
    let server = Server::with_users(&USERS).await?;
    let mut ann = server.flight_as("ann", "secret").await?;
    let mut statement = ann.prepare("SELECT 1".to_owned(), None).await?;
    let close = Action { r#type: "CloseSession".to_owned(), body: Default::default() };
    ann.do_action(close).await?;
    assert_eq!(code(ann.get_catalogs().await), Some(Code::Unauthenticated));
    assert_eq!(code(statement.execute().await), Some(Code::Unauthenticated));
    server.stop().await
}

#[tokio::test]
async fn without_users_any_login_will_do() -> Result {
    let server = Server::open().await?;
    let mut anybody = server.flight_as("anybody", "anything").await?;
    assert!(anybody.token().is_some());
    assert_eq!(query(&mut anybody, "SELECT 1").await?.len(), 1);
    // A token from before a restart is no reason to refuse somebody who needs none.
    anybody.set_token("left-over".to_owned());
    assert_eq!(query(&mut anybody, "SELECT 1").await?.len(), 1);
    server.stop().await
}

#[tokio::test]
async fn other_machines_are_not_let_in_without_a_password() -> Result {
    let server = Server::open().await?;
    let everywhere = TcpListener::bind("0.0.0.0:0").await?;
    let served =
        serve(everywhere, server.database.clone(), ServeOptions::default(), async {}).await;
    let refused = served.err().ok_or("it was served")?.to_string();
    assert!(refused.contains("no password is set"), "{refused}");
    server.stop().await
}

#[tokio::test]
async fn tls_is_served_to_those_who_know_the_authority() -> Result {
    let options = ServeOptions {
        users: vec![("ann".to_owned(), "secret".to_owned())],
        tls: Some(tls()),
        ..ServeOptions::default()
    };
    let server = Server::start(options).await?;
    let target = |authority| Target {
        url: format!("grpc+tls://ann:secret@localhost:{}", server.address.port()),
        authority,
        ..Target::default()
    };
    let client = Client::connect(&target(Some(tls().certificate))).await?;
    assert_eq!(client.server().await?.0, "Tidemill");
    assert!(Client::connect(&target(None)).await.is_err(), "nobody vouches for the certificate");
    let plain = Target { url: server.url(), ..Target::default() };
    assert!(Client::connect(&plain).await.is_err(), "there is no plain TCP beside it");
    server.stop().await
}

#[tokio::test]
async fn a_certificate_that_is_none_is_refused_at_once() -> Result {
    let server = Server::open().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut files = tls();
    std::mem::swap(&mut files.certificate, &mut files.key);
    let options = ServeOptions { tls: Some(files), ..ServeOptions::default() };
    let served = serve(listener, server.database.clone(), options, std::future::pending()).await;
    let refused = served.err().ok_or("it was served")?.to_string();
    assert!(refused.contains("PEM"), "{refused}");
    server.stop().await
}

#[tokio::test]
async fn our_client_says_what_went_wrong() -> Result {
    let server = Server::with_users(&USERS).await?;
    let target = |url: String, user: &str, password: &str| Target {
        url,
        user: Some(user.to_owned()),
        password: Some(password.to_owned()),
        authority: None,
    };
    let wrong =
        Client::connect(&target(server.url(), "ann", "x")).await.err().ok_or("it opened")?;
    assert_eq!(wrong.to_string(), "wrong user name or password");
    let none = Client::connect(&Target { url: server.url(), ..Target::default() }).await;
    assert!(none.err().ok_or("it opened")?.to_string().contains("log in first"));
    let client = Client::connect(&target(server.url(), "ann", "secret")).await?;
    client.close().await?;
    let url = server.url();
    server.stop().await?;
    let gone = Client::connect(&target(url.clone(), "ann", "secret")).await.err().ok_or("?")?;
    assert!(gone.to_string().contains(url.trim_start_matches("grpc://")), "{gone}");
    Ok(())
}
