//! How a change of keys is carried out for a caller: once (`Idempotency-Key`), with the approval of
//! others where the configuration asks for it (`Approval-Id`), or by one person alone in an emergency
//! (`Break-Glass`).

use std::{
    future::{Ready, ready},
    ops::RangeInclusive,
    sync::Arc,
};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
    http::{StatusCode, header},
    web,
};
use serde::Serialize;

use super::{approvals::ApprovalView, problem::Problem, request::to_the_end};
use crate::{
    client::Client,
    service::{
        Class, Error, Service,
        approvals::{ApprovalRequest, Clearance, Order},
        once::{Begin, KeptAnswer, Ticket},
    },
    timestamp::Timestamp,
};

/// What the headers of a request say about how it is to be carried out.
#[derive(Default, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Terms {
    /// The same key and content get the same answer, and one change.
    #[param(rename = "idempotency-key", pattern = "^[!-~]{1,128}$")]
    idempotency_key: Option<String>,
    /// The approval request that must be the right one for this.
    #[param(rename = "approval-id", pattern = "^[!-~]{1,64}$")]
    approval: Option<String>,
    /// Why one person acts alone, without the approvals that the configuration asks for.
    #[param(rename = "break-glass", pattern = "^[!-~][ -~]{8,254}[!-~]$")]
    break_glass: Option<String>,
}

impl FromRequest for Terms {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(terms(request))
    }
}

fn terms(request: &HttpRequest) -> Result<Terms, Problem> {
    Ok(Terms {
        idempotency_key: text(request, "idempotency-key", 1..=128, b'!')?,
        approval: text(request, "approval-id", 1..=64, b'!')?,
        break_glass: text(request, "break-glass", 10..=256, b' ')?,
    })
}

/// A header that is there once, or not at all, in printable ASCII from `first` on.
fn text(
    request: &HttpRequest,
    name: &'static str,
    length: RangeInclusive<usize>,
    first: u8,
) -> Result<Option<String>, Problem> {
    let mut values = request.headers().get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    let fits = |text: &&str| length.contains(&text.len()) && text.bytes().all(|b| (first..=b'~').contains(&b));
    let text = value.to_str().ok().map(str::trim).filter(fits);
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        (_, _) => {
            let (least, most) = (length.start(), length.end());
            let spaces = if first == b' ' { "" } else { " without spaces" };
            let expected = format!("expected one header of {least} to {most} printable ASCII characters{spaces}");
            Err(Problem::field(format!("(header {name})"), expected))
        }
    }
}

/// A done change, as it is answered and kept.
pub(super) fn done(status: StatusCode, location: Option<String>, body: &impl Serialize) -> Result<KeptAnswer, Error> {
    let body = serde_json::to_value(body).map_err(|_| Error::Internal("an answer that has no JSON form"))?;
    Ok(KeptAnswer { status: status.as_u16(), location, body })
}

/// One change that is asked for: what, and by whom.
pub(super) struct Change {
    pub caller: Client,
    pub terms: Terms,
    pub order: Order,
}

enum Outcome {
    Done(KeptAnswer),
    Repeated(KeptAnswer),
    Waiting(Box<ApprovalRequest>),
}

/// Finds the change in what is on record, when it was begun at that time and its outcome is not known.
pub(super) type Recover = Box<dyn FnOnce(&Service, Timestamp) -> Option<KeptAnswer> + Send>;

/// For changes that do no harm when they are made again.
pub(super) fn again() -> Recover {
    Box::new(|_, _| None)
}

/// Carries it out. `work` makes the change.
pub(super) async fn carry_out<F>(
    service: &web::Data<Service>,
    change: Change,
    recover: Recover,
    work: impl FnOnce(Arc<Service>) -> F + Send + 'static,
) -> Result<HttpResponse, Problem>
where
    F: Future<Output = Result<KeptAnswer, Error>> + Send + 'static,
{
    let outcome = to_the_end(service, |service| run(service, change, recover, work)).await?;
    Ok(match outcome {
        Outcome::Done(answer) => response(&answer, false),
        Outcome::Repeated(answer) => response(&answer, true),
        Outcome::Waiting(request) => HttpResponse::Accepted()
            .insert_header((header::LOCATION, format!("/api/v1/approvals/{}", request.id)))
            .json(ApprovalView::new(&request, service)),
    })
}

fn response(answer: &KeptAnswer, repeated: bool) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = HttpResponse::build(status);
    if let Some(location) = &answer.location {
        response.insert_header((header::LOCATION, location.as_str()));
    }
    if repeated {
        response.insert_header(("idempotent-replayed", "true"));
    }
    response.json(&answer.body)
}

async fn run<F>(
    service: Arc<Service>,
    change: Change,
    recover: Recover,
    work: impl FnOnce(Arc<Service>) -> F,
) -> Result<Outcome, Error>
where
    F: Future<Output = Result<KeptAnswer, Error>>,
{
    let Change { caller, terms, order } = change;
    let ticket = match begin(&service, &caller, terms.idempotency_key, &order).await? {
        None => Kept::No,
        Some(Begin::Done(answer)) => return Ok(Outcome::Repeated(answer)),
        Some(Begin::Fresh(ticket)) => Kept::New(ticket),
        Some(Begin::Unsettled(ticket, began_at)) => {
            service.keyring.refresh().await?;
            if let Some(answer) = recover(&service, began_at.truncated_to_seconds()) {
                Kept::Open(ticket).settle(&answer).await;
                return Ok(Outcome::Repeated(answer));
            }
            Kept::Open(ticket)
        }
    };
    let clearance = match service.clear(&caller, &order, terms.approval, terms.break_glass.as_deref()).await {
        Ok(Clearance::Waiting(request)) => {
            ticket.forget().await;
            return Ok(Outcome::Waiting(request));
        }
        Ok(clearance) => clearance,
        Err(error) => {
            ticket.forget().await;
            return Err(error);
        }
    };
    match work(Arc::clone(&service)).await {
        Ok(answer) => {
            ticket.settle(&answer).await;
            Ok(Outcome::Done(answer))
        }
        Err(error) => {
            // A refusal changed nothing. After any other failure the change may have been made: the
            // approval stays used up, and the key's next request looks first.
            if error.class() == Class::Caller {
                ticket.forget().await;
                if let Clearance::Approved(id) = clearance {
                    service.give_back_approval(id).await;
                }
            }
            Err(error)
        }
    }
}

async fn begin(service: &Service, caller: &Client, key: Option<String>, order: &Order) -> Result<Option<Begin>, Error> {
    let Some(key) = key else { return Ok(None) };
    let (once, client) = (Arc::clone(&service.once), caller.identity.to_string());
    let (digest, now) = (order.digest_bytes(), service.clock.now());
    let begun = tokio::task::spawn_blocking(move || once.begin(&client, &key, &digest, now)).await;
    Ok(Some(begun.map_err(|_| Error::Internal("an idempotency key was cut short"))??))
}

/// The ticket of a request with a key.
enum Kept {
    No,
    New(Ticket),
    /// An earlier request with it may have been done.
    Open(Ticket),
}

impl Kept {
    /// What cannot be kept is found on record when the key comes again.
    async fn settle(self, answer: &KeptAnswer) {
        let (Self::New(ticket) | Self::Open(ticket)) = self else { return };
        let answer = answer.clone();
        let settled = tokio::task::spawn_blocking(move || ticket.settle(answer)).await;
        if !matches!(settled, Ok(Ok(()))) {
            tracing::warn!(?settled, "an answer could not be kept for repeated requests");
        }
    }

    async fn forget(self) {
        let Self::New(ticket) = self else { return };
        let forgotten = tokio::task::spawn_blocking(move || ticket.forget()).await;
        if !matches!(forgotten, Ok(Ok(()))) {
            tracing::warn!(?forgotten, "an idempotency key could not be forgotten");
        }
    }
}
