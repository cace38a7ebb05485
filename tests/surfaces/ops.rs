//! The operations listener.

use reentry::flow::poll::Standing;

use crate::world::{ANA, DINA, ELI, World};

async fn get(world: &World, path: &str) -> (u16, String) {
    let response = world
        .web
        .get(format!("{}{path}", world.operations))
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn it_is_alive_at_once_and_ready_only_after_the_log_was_read() {
    let world = World::start().await;
    assert_eq!(get(&world, "/live").await.0, 200);
    let (status, body) = get(&world, "/ready").await;
    assert!(
        status == 503 && body.contains("demo: the log was not read to its end yet"),
        "{body}"
    );
    world.context.readiness.store(None);
    world.context.readiness.polled(
        &world.upstream,
        &Standing {
            caught_up: true,
            ..Standing::default()
        },
    );
    assert_eq!(get(&world, "/ready").await.0, 200);
    // Latched: what is wrong later is said, and takes no replica out of service.
    let fault = Standing {
        caught_up: true,
        fault: Some("no answer".to_owned()),
        ..Standing::default()
    };
    world.context.readiness.polled(&world.upstream, &fault);
    let (status, body) = get(&world, "/ready").await;
    assert!(status == 200 && body.contains("no answer"), "{body}");
}

#[tokio::test]
async fn metrics_are_there_and_never_on_the_public_listener() {
    let mut world = World::start().await;
    assert_eq!(
        get(&world, "/metrics").await.0,
        404,
        "a process that counts nothing says so"
    );
    world.context.metrics = Some(reentry::telemetry::metric::Metrics::install().unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.operations = format!("http://{}", listener.local_addr().unwrap());
    let router = reentry::http::operations(world.context.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(get(&world, "/live").await.0, 200);
    let (status, body) = get(&world, "/metrics").await;
    assert!(status == 200 && body.contains("reentry_http_seconds"), "{body}");
    world.mails.refuse("ana@example.com", 550);
    world.mails.refuse("dina@example.com", 451);
    for sub in [ANA, DINA, ELI] {
        world.reset(sub).await;
    }
    reentry::flow::deliver::gauge::count(&world.flow).await.unwrap();
    let (_, body) = get(&world, "/metrics").await;
    for (state, count) in [("pending", 0), ("retrying", 1), ("dead", 1)] {
        let line = format!("reentry_outbox_now{{kind=\"email\",state=\"{state}\"}} {count}");
        assert!(body.contains(&line), "{line}: {body}");
    }
    for outcome in ["delivered", "retried", "dead"] {
        let line = format!("reentry_effects_total{{kind=\"email\",outcome=\"{outcome}\"}}");
        assert!(body.contains(&line), "{line}: {body}");
    }
    for path in ["/metrics", "/live", "/ready"] {
        let public = world
            .web
            .get(format!("{}{path}", world.issuer))
            .send()
            .await
            .unwrap();
        assert_eq!(public.status(), 404, "{path}");
    }
}
